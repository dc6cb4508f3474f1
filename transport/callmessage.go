package transport

import (
	"fmt"
	"io"
	"time"
)

// MaxCallBytes bounds what a call sends, and what is answered.
const MaxCallBytes = 80 << 20

const maxMethod = 32

// Call: the table stands in doc.go.
const (
	callMethod  = 1
	callTimeout = 2
	callLength  = 3
)

// callHead opens a call; length bytes of body follow in chunks.
type callHead struct {
	method  string
	timeout time.Duration
	length  int64
}

func (h *callHead) validate() error {
	switch {
	case !validWord(h.method, maxMethod):
		return fmt.Errorf("%w: method %q", ErrInvalid, h.method)
	case h.length > MaxCallBytes:
		return fmt.Errorf("%w: a body of %d bytes, %d are allowed", ErrTooLarge, h.length, MaxCallBytes)
	case h.timeout < time.Microsecond:
		return fmt.Errorf("%w: no time is left", ErrTooLate)
	}
	return nil
}

// appendCall appends the frame of a valid head.
func appendCall(b []byte, h *callHead) ([]byte, error) {
	b, at := openFrame(b)
	f := fields(b)
	f.text(callMethod, h.method)
	f.u64(callTimeout, uint64(h.timeout/time.Microsecond))
	f.u64(callLength, uint64(h.length))
	return sealFrame(f, at, frameCall)
}

// parseCall reads the body of a call frame.
func parseCall(body []byte) (*callHead, error) {
	var h callHead
	err := eachField(body, func(typ uint16, b []byte) error {
		v := value{typ: typ, b: b}
		switch typ {
		case callMethod:
			h.method = v.text(maxMethod)
		case callTimeout:
			h.timeout = time.Duration(min(v.u64(), uint64(maxTimeout/time.Microsecond))) * time.Microsecond
		case callLength:
			h.length = v.length(v.u64())
		default:
			return errUnknownField
		}
		return v.err
	})
	if err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	return &h, h.validate()
}

// callWriter is a stream's half.
type callWriter interface {
	io.Writer
	TryWriteAll(b []byte) error // without waiting, or not at all
}

// sendCall writes a whole call; what is small leaves in one write.
func sendCall(w callWriter, buf *[]byte, h *callHead, body []byte) error {
	out, err := appendCall((*buf)[:0], h)
	for err == nil {
		n := min(len(body), chunkBytes)
		if n > 0 {
			if out, err = appendChunk(out, body[:n]); err != nil {
				break
			}
			body = body[n:]
		}
		if len(out) >= chunkBytes || len(body) == 0 {
			if len(body) > 0 || len(out) > lastBytes || w.TryWriteAll(out) != nil {
				_, err = w.Write(out)
			}
			out = out[:0]
		}
		if len(body) == 0 {
			break
		}
	}
	*buf = out[:0]
	return err
}

// readChunks reads n bytes of payload. Memory grows as they arrive: a length
// that nothing follows costs its sender more than us. patience is called before
// each frame.
func readChunks(r io.Reader, buf *[]byte, n int64, patience func() error) ([]byte, error) {
	all := make([]byte, 0, min(n, chunkBytes))
	for left := n; left > 0; left = n - int64(len(all)) {
		if err := patience(); err != nil {
			return nil, err
		}
		_, chunk, err := readFrame(r, buf, frameChunk)
		if err != nil {
			return nil, unexpected(err)
		}
		if len(chunk) == 0 || int64(len(chunk)) > left {
			return nil, fmt.Errorf("%w: a chunk of %d bytes where %d are left", ErrMalformed, len(chunk), left)
		}
		all = append(all, chunk...)
	}
	return all, nil
}
