package transport

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Kind says what a request asks for.
type Kind uint8

// The kinds; numbers are on the wire.
const (
	KindOpen   Kind = 1 // the record's header and content
	KindStat   Kind = 2 // the header alone
	KindLocate Kind = 3 // the header and where the record lies in the store
)

// MaxHops is how often a request may be passed on.
const MaxHops = 1

// Longest texts on the wire, bytes.
const (
	maxName        = 1024
	maxID          = 64
	maxSource      = 64
	maxRequestID   = 128
	maxTraceparent = 128
	maxCode        = 64
	maxDetail      = 1024
	maxContentType = 1024
	maxMetadata    = 1 << 20
	maxRetention   = 64
	maxETag        = 256
	maxKey         = 1024
	maxStoreID     = 1024
)

// Range is a part of the content, in bytes.
type Range struct{ Offset, Length int64 }

// Request asks a node for a file.
type Request struct {
	Kind        Kind
	Name        string        // the file's name, or
	ID          string        // its id in the source system
	Source      string        // the source's short name; may be empty when there is one
	Range       *Range        // nil: the whole content
	MinIndex    uint64        // a node that has not applied it declines
	Hops        uint8         // how often it was passed on before; Read counts it up
	RequestID   string        // at most 128 bytes
	Traceparent string        // at most 128 bytes
	Timeout     time.Duration // time left, whole microseconds; Read fills it from the context
	MaxPayload  uint32        // of larger contents the location is wanted; 0: no bound
}

// Request: the table stands in doc.go.
const (
	reqKind        = 1
	reqName        = 2
	reqID          = 3
	reqSource      = 4
	reqRange       = 5
	reqMinIndex    = 6
	reqHops        = 7
	reqRequestID   = 8
	reqTraceparent = 9
	reqTimeout     = 10
	reqMaxPayload  = 11
)

func (q *Request) validate() error {
	switch {
	case q.Kind < KindOpen || q.Kind > KindLocate:
		return fmt.Errorf("%w: kind %d", ErrInvalid, q.Kind)
	case (q.Name == "") == (q.ID == ""):
		return fmt.Errorf("%w: either a name or an id is needed", ErrInvalid)
	case len(q.Name) > maxName, len(q.ID) > maxID, len(q.Source) > maxSource,
		len(q.RequestID) > maxRequestID, len(q.Traceparent) > maxTraceparent:
		return fmt.Errorf("%w: a text is too long", ErrInvalid)
	case q.Range != nil && (q.Range.Offset < 0 || q.Range.Length < 0):
		return fmt.Errorf("%w: a negative range", ErrInvalid)
	case q.Timeout < time.Microsecond:
		return fmt.Errorf("%w: no time is left", ErrTooLate)
	}
	return nil
}

// appendRequest appends the frame of a valid request.
func appendRequest(b []byte, q *Request) ([]byte, error) {
	b, at := openFrame(b)
	f := fields(b)
	f.u8(reqKind, uint8(q.Kind))
	f.text(reqName, q.Name)
	f.text(reqID, q.ID)
	f.text(reqSource, q.Source)
	if q.Range != nil {
		f.pair(reqRange, uint64(q.Range.Offset), uint64(q.Range.Length))
	}
	f.u64(reqMinIndex, q.MinIndex)
	f.u8(reqHops, q.Hops)
	f.text(reqRequestID, q.RequestID)
	f.text(reqTraceparent, q.Traceparent)
	f.u64(reqTimeout, uint64(q.Timeout/time.Microsecond))
	f.u32(reqMaxPayload, q.MaxPayload)
	return sealFrame(f, at, frameRequest)
}

// parseRequest reads the body of a request frame.
func parseRequest(body []byte) (*Request, error) {
	var q Request
	err := eachField(body, func(typ uint16, b []byte) error {
		v := value{typ: typ, b: b}
		switch typ {
		case reqKind:
			q.Kind = Kind(v.u8())
		case reqName:
			q.Name = v.text(maxName)
		case reqID:
			q.ID = v.text(maxID)
		case reqSource:
			q.Source = v.text(maxSource)
		case reqRange:
			off, n := v.pair()
			q.Range = &Range{v.length(off), v.length(n)}
		case reqMinIndex:
			q.MinIndex = v.u64()
		case reqHops:
			q.Hops = v.u8()
		case reqRequestID:
			q.RequestID = v.text(maxRequestID)
		case reqTraceparent:
			q.Traceparent = v.text(maxTraceparent)
		case reqTimeout:
			q.Timeout = time.Duration(min(v.u64(), uint64(maxTimeout/time.Microsecond))) * time.Microsecond
		case reqMaxPayload:
			q.MaxPayload = v.u32()
		default:
			return errUnknownField
		}
		return v.err
	})
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	return &q, q.validate()
}

// maxTimeout bounds what a request may hold of a server.
const maxTimeout = time.Hour

// Origin says where content comes from.
type Origin uint8

// The origins; numbers are on the wire.
const (
	OriginPack   Origin = 1
	OriginSource Origin = 2 // not packed yet: read-through
)

// Location is where a record lies in the object store.
type Location struct {
	Key            string
	VersionID      string // the store's; empty: none
	Offset, Length int64  // of the record, in bytes
}

// Response is the head of an answer that is OK; all but Applied may be zero.
type Response struct {
	Applied        uint64 // Raft index that the answering node has applied
	Name           string
	ID, Source     string
	Size           int64 // of the content
	SHA256         [32]byte
	Modified       time.Time
	Created        time.Time
	ContentType    string
	Metadata       []byte // the customer's, opaque here
	Pack           [16]byte
	Ordinal        uint32
	SeqGeneration  uint64
	SeqIndex       uint64
	ArchiveVersion uint64
	Retention      string
	Range          *Range // the part that the payload is; nil: the whole
	ETag           string // where it is not the SHA-256
	Origin         Origin
	Location       *Location // instead of a payload
}

// answerHead is a response as it is on the wire.
type answerHead struct {
	Response
	status     Status
	code       string
	detail     string
	retryAfter time.Duration
	payload    int64
	hasPayload bool
}

// Response: the table stands in doc.go.
const (
	respStatus         = 1
	respCode           = 2
	respDetail         = 3
	respApplied        = 4
	respRetryAfter     = 5
	respName           = 16
	respID             = 17
	respSource         = 18
	respSize           = 19
	respSHA256         = 20
	respModified       = 21
	respCreated        = 22
	respContentType    = 23
	respMetadata       = 24
	respPack           = 25
	respOrdinal        = 26
	respSeq            = 27
	respArchiveVersion = 28
	respRetention      = 29
	respRange          = 30
	respETag           = 31
	respOrigin         = 32
	respLocation       = 33
	respPayload        = 34
)

// appendResponse appends the frame of a response.
func appendResponse(b []byte, h *answerHead) ([]byte, error) {
	b, at := openFrame(b)
	f := fields(b)
	f.u8(respStatus, uint8(h.status))
	f.text(respCode, h.code)
	f.text(respDetail, h.detail)
	f.u64(respApplied, h.Applied)
	f.u32(respRetryAfter, uint32(h.retryAfter/time.Millisecond))
	f.text(respName, h.Name)
	f.text(respID, h.ID)
	f.text(respSource, h.Source)
	f.u64(respSize, uint64(h.Size))
	if h.SHA256 != [32]byte{} {
		f.bytes(respSHA256, h.SHA256[:])
	}
	f.time(respModified, h.Modified)
	f.time(respCreated, h.Created)
	f.text(respContentType, h.ContentType)
	f.bytes(respMetadata, h.Metadata)
	if h.Pack != [16]byte{} {
		f.bytes(respPack, h.Pack[:])
	}
	f.u32(respOrdinal, h.Ordinal)
	if h.SeqGeneration != 0 || h.SeqIndex != 0 {
		f.pair(respSeq, h.SeqGeneration, h.SeqIndex)
	}
	f.u64(respArchiveVersion, h.ArchiveVersion)
	f.text(respRetention, h.Retention)
	if h.Range != nil {
		f.pair(respRange, uint64(h.Range.Offset), uint64(h.Range.Length))
	}
	f.text(respETag, h.ETag)
	f.u8(respOrigin, uint8(h.Origin))
	if l := h.Location; l != nil {
		f.head(respLocation, 18+len(l.Key)+len(l.VersionID))
		f = binary.LittleEndian.AppendUint64(f, uint64(l.Offset))
		f = binary.LittleEndian.AppendUint64(f, uint64(l.Length))
		f = binary.LittleEndian.AppendUint16(f, uint16(len(l.Key)))
		f = append(append(f, l.Key...), l.VersionID...)
	}
	if h.hasPayload {
		f.head(respPayload, 9)
		f = append(binary.LittleEndian.AppendUint64(f, uint64(h.payload)), 0)
	}
	return sealFrame(f, at, frameResponse)
}

// validate holds what a Reader answers against the wire's bounds.
func (r *Response) validate() error {
	switch {
	case len(r.Name) > maxName, len(r.ID) > maxID, len(r.Source) > maxSource, len(r.ContentType) > maxContentType,
		len(r.Metadata) > maxMetadata, len(r.Retention) > maxRetention, len(r.ETag) > maxETag:
		return fmt.Errorf("%w: a field of the response", ErrTooLarge)
	case r.Size < 0 || r.Range != nil && (r.Range.Offset < 0 || r.Range.Length < 0):
		return fmt.Errorf("%w: a negative length in the response", ErrMalformed)
	case r.Location != nil && (r.Location.Key == "" || len(r.Location.Key) > maxKey || len(r.Location.VersionID) > maxStoreID ||
		r.Location.Offset < 0 || r.Location.Length < 0):
		return fmt.Errorf("%w: a location without a proper key", ErrMalformed)
	}
	return nil
}

// parseResponse reads the body of a response frame.
func parseResponse(body []byte) (*answerHead, error) {
	var h answerHead
	err := eachField(body, func(typ uint16, b []byte) error {
		v := value{typ: typ, b: b}
		switch typ {
		case respStatus:
			h.status = Status(v.u8())
		case respCode:
			h.code = v.text(maxCode)
		case respDetail:
			h.detail = v.text(maxDetail)
		case respApplied:
			h.Applied = v.u64()
		case respRetryAfter:
			h.retryAfter = time.Duration(v.u32()) * time.Millisecond
		case respLocation:
			h.Location = parseLocation(&v)
		case respPayload:
			p := v.fixed(9)
			if p[8] != 0 {
				v.fail("payload of another encoding")
			}
			h.payload, h.hasPayload = v.length(binary.LittleEndian.Uint64(p)), true
		default:
			if !h.Response.parse(&v) {
				return errUnknownField
			}
		}
		return v.err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("response: %w", err)
	case h.status == 0:
		return nil, fmt.Errorf("response: %w: no status", ErrMalformed)
	case h.hasPayload && (h.status != StatusOK || h.Location != nil):
		return nil, fmt.Errorf("response: %w: a payload that does not belong", ErrMalformed)
	}
	return &h, nil
}

// parse takes a field of the file's description; false: not one of them.
func (r *Response) parse(v *value) bool {
	switch v.typ {
	case respName:
		r.Name = v.text(maxName)
	case respID:
		r.ID = v.text(maxID)
	case respSource:
		r.Source = v.text(maxSource)
	case respSize:
		r.Size = v.length(v.u64())
	case respSHA256:
		r.SHA256 = [32]byte(v.fixed(32))
	case respModified:
		r.Modified = v.time()
	case respCreated:
		r.Created = v.time()
	case respContentType:
		r.ContentType = v.text(maxContentType)
	case respMetadata:
		r.Metadata = append([]byte(nil), v.bytes(maxMetadata)...)
	case respPack:
		r.Pack = [16]byte(v.fixed(16))
	case respOrdinal:
		r.Ordinal = v.u32()
	case respSeq:
		r.SeqGeneration, r.SeqIndex = v.pair()
	case respArchiveVersion:
		r.ArchiveVersion = v.u64()
	case respRetention:
		r.Retention = v.text(maxRetention)
	case respRange:
		off, n := v.pair()
		r.Range = &Range{v.length(off), v.length(n)}
	case respETag:
		r.ETag = v.text(maxETag)
	case respOrigin:
		r.Origin = Origin(v.u8())
	default:
		return false
	}
	return true
}

func parseLocation(v *value) *Location {
	if len(v.b) < 18 {
		v.fail("cut")
		return nil
	}
	n := int(binary.LittleEndian.Uint16(v.b[16:]))
	rest := v.b[18:]
	if n == 0 || n > maxKey || n > len(rest) || len(rest)-n > maxStoreID {
		v.fail("a key of %d bytes in %d", n, len(rest))
		return nil
	}
	return &Location{
		Key: string(rest[:n]), VersionID: string(rest[n:]),
		Offset: v.length(binary.LittleEndian.Uint64(v.b)), Length: v.length(binary.LittleEndian.Uint64(v.b[8:])),
	}
}

// trailer ends a payload.
type trailer struct {
	status Status
	code   string
	detail string
	sum    uint32
	sent   int64
}

// Trailer: the table stands in doc.go.
const (
	trailStatus = 1
	trailCode   = 2
	trailDetail = 3
	trailSum    = 4
	trailSent   = 5
)

// appendTrailer appends the frame of a trailer.
func appendTrailer(b []byte, t *trailer) ([]byte, error) {
	b, at := openFrame(b)
	f := fields(b)
	f.u8(trailStatus, uint8(t.status))
	f.text(trailCode, t.code)
	f.text(trailDetail, t.detail)
	f.u32(trailSum, t.sum)
	f.u64(trailSent, uint64(t.sent))
	return sealFrame(f, at, frameTrailer)
}

// parseTrailer reads the body of a trailer frame.
func parseTrailer(body []byte) (*trailer, error) {
	var t trailer
	err := eachField(body, func(typ uint16, b []byte) error {
		v := value{typ: typ, b: b}
		switch typ {
		case trailStatus:
			t.status = Status(v.u8())
		case trailCode:
			t.code = v.text(maxCode)
		case trailDetail:
			t.detail = v.text(maxDetail)
		case trailSum:
			t.sum = v.u32()
		case trailSent:
			t.sent = v.length(v.u64())
		default:
			return errUnknownField
		}
		return v.err
	})
	if err == nil && t.status == 0 {
		err = fmt.Errorf("%w: no status", ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("trailer: %w", err)
	}
	return &t, nil
}

// cut shortens a text for the wire, at the end of a rune.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xc0 == 0x80 {
		limit--
	}
	return s[:limit]
}
