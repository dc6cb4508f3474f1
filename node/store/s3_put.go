package store

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// putRounds is how often Put looks at a key that is taken and, a moment later,
// free: others move and delete there.
const putRounds = 3

// Put creates the object at key, in one request up to the part size, in parts
// above. The bytes are read twice, once for their checksum and once to be sent,
// and never held.
//
// A key that is taken, which a repetition after a lost answer finds too, is
// settled by comparing the object's bytes with the body.
func (s *S3) Put(ctx context.Context, key string, body Body, size int64) (Object, error) {
	full, err := s.key(ctx, key)
	if err != nil {
		return Object{}, err
	}
	if size < 0 {
		return Object{}, fmt.Errorf("put %s: size %d", key, size)
	}
	conditional, err := s.ConditionalCreate(ctx)
	if err != nil {
		return Object{}, fmt.Errorf("put %s: %w", key, err)
	}
	p := putting{s: s, key: key, full: full, body: body, size: size, conditional: conditional}
	for range putRounds {
		var o Object
		if !conditional {
			if o, err = p.settle(ctx); !errors.Is(err, ErrNotFound) {
				return o, err
			}
		}
		if o, err = p.send(ctx); err == nil {
			return o, nil
		}
		if !refusedCondition(err) {
			return p.afterFailure(ctx, err)
		}
		if o, err = p.settle(ctx); !errors.Is(err, ErrNotFound) {
			return o, err
		}
	}
	return Object{}, fmt.Errorf("put %s: the key is taken and free by turns", key)
}

// putting is one call of Put.
type putting struct {
	s           *S3
	key, full   string
	body        Body
	size        int64
	conditional bool
}

func (p *putting) call() call { return call{"put", p.key, p.s.write, rightPut} }

// send sends the object. Its errors are the SDK's.
func (p *putting) send(ctx context.Context) (Object, error) {
	if p.size > p.s.cfg.PartSize {
		u := upload{s: p.s, role: p.s.write, key: p.key, full: p.full, body: p.body, size: p.size, partSize: partSize(p.size, p.s.cfg.PartSize)}
		return u.send(ctx, p.conditional)
	}
	sum, err := checksum(ctx, p.body, 0, p.size)
	if err != nil {
		return Object{}, err
	}
	in := &s3.PutObjectInput{
		Bucket: &p.s.target.bucket, Key: &p.full, Body: newSendBody(p.body, 0, p.size),
		ContentLength: &p.size, ChecksumCRC32C: &sum,
	}
	if p.conditional {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := p.s.write.PutObject(as(ctx, KindPut, ClassPut), in)
	if err != nil {
		return Object{}, err
	}
	return p.s.created(ctx, p.key, p.full, p.size, versionOf(out.VersionId, out.ETag))
}

// created describes an object just put, whose time the server does not tell.
func (s *S3) created(ctx context.Context, key, full string, size int64, version string) (Object, error) {
	if version == "" {
		h, err := s.head(ctx, s.read, key, full, "")
		return h.Object, err
	}
	return Object{Key: key, Size: size, Version: version}, nil
}

// afterFailure explains why the object could not be sent. Of an upload in
// parts whose last answer was lost, the repetition finds no upload: if the
// object is there, that was our own success.
func (p *putting) afterFailure(ctx context.Context, err error) (Object, error) {
	if errCode(err) == "NoSuchUpload" {
		if o, errSettle := p.settle(ctx); errSettle == nil || errors.Is(errSettle, ErrExists) {
			return o, errSettle
		}
	}
	return Object{}, p.s.explain(ctx, p.call(), err)
}

// settle decides what a taken key means: our own success, when the object has
// the same bytes, else ErrExists. ErrNotFound: it is free.
func (p *putting) settle(ctx context.Context) (Object, error) {
	o, err := p.s.head(ctx, p.s.read, p.key, p.full, "")
	if err != nil {
		return Object{}, fmt.Errorf("put: %w", err)
	}
	if o.Size != p.size {
		return Object{}, fmt.Errorf("put %s: %w", p.key, ErrExists)
	}
	r, err := p.s.Get(ctx, p.key, o.Version, 0, o.Size)
	if err != nil {
		return Object{}, fmt.Errorf("put: compare with the object there: %w", err)
	}
	same, err := sameStream(r, newSendBody(p.body, 0, p.size))
	if err = errors.Join(err, r.Close()); err != nil {
		return Object{}, fmt.Errorf("put %s: compare with the object there: %w", p.key, err)
	}
	if !same {
		return Object{}, fmt.Errorf("put %s: %w", p.key, ErrExists)
	}
	return o.Object, nil
}

// sameStream compares two streams of one length.
func sameStream(a, b io.Reader) (bool, error) {
	bufA, bufB := make([]byte, copyBuffer), make([]byte, copyBuffer)
	for {
		n, errA := io.ReadFull(a, bufA)
		_, errB := io.ReadFull(b, bufB[:n])
		if errB != nil && n > 0 {
			return false, errB
		}
		if string(bufA[:n]) != string(bufB[:n]) {
			return false, nil
		}
		if errors.Is(errA, io.EOF) || errors.Is(errA, io.ErrUnexpectedEOF) && n < len(bufA) {
			return true, nil
		}
		if errA != nil {
			return false, errA
		}
	}
}

// checksum returns the CRC32C of a section of a body, as S3 writes it.
func checksum(ctx context.Context, body Body, off, n int64) (string, error) {
	buf := make([]byte, min(copyBuffer, max(n, 1)))
	table := castagnoli()
	var sum uint32
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		b := buf[:min(int64(len(buf)), n)]
		if err := readFull(body, b, off); err != nil {
			return "", &bodyError{err}
		}
		sum = crc32.Update(sum, table, b)
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)), nil
}

// bodyError: what was to be sent could not be read. It is not tried again.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// sendBody is a section of a body, as the SDK wants it: it is read, and read
// again from its start.
type sendBody struct {
	section *io.SectionReader

	mu  sync.Mutex // the transport may still read a body that was answered
	err error      // guarded by mu
}

func newSendBody(body Body, off, n int64) *sendBody {
	return &sendBody{section: io.NewSectionReader(body, off, n)}
}

func (b *sendBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.section.Read(p)
	if errors.Is(err, io.EOF) {
		at, errSeek := b.section.Seek(0, io.SeekCurrent)
		if errSeek == nil && at == b.section.Size() {
			return n, io.EOF
		}
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		b.err = &bodyError{err}
		err = b.err
	}
	return n, err
}

func (b *sendBody) Seek(offset int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.section.Seek(offset, whence)
}
