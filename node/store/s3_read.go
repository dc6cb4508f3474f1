package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	// smallGet is up to what size a Get is read as a whole before it returns, so
	// that it can be hedged and repeated.
	smallGet = 1 << 20
	// resumes is how often a stream that breaks is taken up again without having
	// moved.
	resumes = 3
)

// Words of rights, as bucket policies have them.
const (
	rightGet    = "s3:GetObject (s3:GetObjectVersion where the bucket has versions, s3:ListBucket to tell what is missing)"
	rightPut    = "s3:PutObject"
	rightList   = "s3:ListBucket (s3:ListBucketVersions where the bucket has versions)"
	rightDelete = "s3:DeleteObject and s3:DeleteObjectVersion"
)

// condition is how a version is asked for.
type condition struct {
	versionID, ifMatch *string
}

// isETag tells an ETag, with its quotes, from a version id.
func isETag(version string) bool { return strings.HasPrefix(version, `"`) }

// onVersion returns how to ask for a version, and false when no store can have
// given it out.
func onVersion(version string) (condition, bool) {
	switch {
	case version == "":
		return condition{}, true
	case !isETag(version):
		return condition{versionID: &version}, true
	case len(version) > 2 && strings.HasSuffix(version, `"`) && strings.Count(version, `"`) == 2:
		return condition{ifMatch: &version}, true
	default:
		return condition{}, false
	}
}

// versionOf names the bytes that an answer is about. The version id "null" is
// that of every object put while versioning was off or suspended, so it names
// no bytes.
func versionOf(id, etag *string) string {
	if v := aws.ToString(id); v != "" && v != "null" {
		return v
	}
	return aws.ToString(etag)
}

// notThatVersion is the error for a key that holds another version.
func notThatVersion(op, key, wanted string) error {
	return fmt.Errorf("%s %s: version %s: %w: %w", op, key, wanted, ErrReplaced, ErrNotFound)
}

// Head describes the object at key.
func (s *S3) Head(ctx context.Context, key, version string) (Object, error) {
	full, err := s.key(ctx, key)
	if err != nil {
		return Object{}, err
	}
	h, err := s.head(ctx, s.read, key, full, version)
	return h.Object, err
}

// errAppeared: a HEAD found nothing, and a GET right after it did.
var errAppeared = errors.New("it appeared just now")

// headed is what a HEAD tells.
type headed struct {
	Object
	etag string
	id   string // version id; "null" for what was put while versioning was off, empty where it always was
}

// head asks for an object's properties with the credentials of a role.
func (s *S3) head(ctx context.Context, r s3Role, key, full, version string) (headed, error) {
	h, err := s.headOnce(ctx, r, key, full, version)
	if errors.Is(err, errAppeared) {
		return s.headOnce(ctx, r, key, full, version)
	}
	return h, err
}

func (s *S3) headOnce(ctx context.Context, r s3Role, key, full, version string) (headed, error) {
	on, ok := onVersion(version)
	if !ok {
		return headed{}, notThatVersion("head", key, version)
	}
	out, err := r.HeadObject(as(ctx, KindHead, ClassGet), &s3.HeadObjectInput{
		Bucket: &s.target.bucket, Key: &full, VersionId: on.versionID, IfMatch: on.ifMatch,
	})
	if err != nil {
		return headed{}, s.headFailed(ctx, call{"head", key, r, rightGet}, full, version, err)
	}
	h := headed{etag: aws.ToString(out.ETag), id: aws.ToString(out.VersionId)}
	if on.ifMatch != nil && h.etag != version {
		return headed{}, notThatVersion("head", key, version) // the server ignored If-Match
	}
	h.Object = Object{Key: key, Size: aws.ToInt64(out.ContentLength), Version: versionOf(out.VersionId, out.ETag), Modified: aws.ToTime(out.LastModified)}
	if h.Version == "" || out.ContentLength == nil {
		return headed{}, fmt.Errorf("head %s: the answer has no ETag or no length", key)
	}
	return h, nil
}

// headFailed explains a HEAD that failed. Its 404 has no body to say whether
// the object is missing, the version or the whole bucket, and other refusals
// have none either: a GET of one byte is asked, whose answer has one.
func (s *S3) headFailed(ctx context.Context, c call, full, version string, err error) error {
	status := errStatus(err)
	if status == http.StatusPreconditionFailed {
		return notThatVersion("head", c.key, version)
	}
	if status != http.StatusNotFound && status != http.StatusBadRequest {
		return s.explain(ctx, c, err)
	}
	on, _ := onVersion(version)
	out, errGet := c.role.GetObject(as(ctx, KindGet, ClassGet), &s3.GetObjectInput{
		Bucket: &s.target.bucket, Key: &full, VersionId: on.versionID, IfMatch: on.ifMatch, Range: aws.String("bytes=0-0"),
	})
	if errGet == nil {
		_ = out.Body.Close() // at most one byte, and nobody's
		return fmt.Errorf("head %s: %w: %w", c.key, errAppeared, err)
	}
	if refusedCondition(errGet) {
		return notThatVersion("head", c.key, version)
	}
	return s.explain(ctx, c, errGet)
}

// Get streams a part of the object at key. Up to 1 MiB it is read before Get
// returns. A longer stream that breaks is taken up again where it broke.
func (s *S3) Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	full, err := s.key(ctx, key)
	if err != nil {
		return nil, err
	}
	if off < 0 || n > math.MaxInt64-off {
		return nil, fmt.Errorf("get %s: %d bytes from %d, beyond any object", key, n, off)
	}
	p := part{key: key, full: full, version: version, off: off, n: n}
	switch {
	case n == 0:
		return s.emptyPart(ctx, p)
	case n > 0 && n <= smallGet:
		b, err := s.getSmall(ctx, p)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	default:
		return s.stream(ctx, s.read, p)
	}
}

// stream streams a part that is not empty, or all from some byte on.
func (s *S3) stream(ctx context.Context, r s3Role, p part) (io.ReadCloser, error) {
	first, err := s.open(ctx, r, p)
	if errStatus(err) == http.StatusRequestedRangeNotSatisfiable && p.n < 0 {
		return s.emptyPart(ctx, p) // all that follows the end
	}
	if err != nil {
		return nil, s.getFailed(ctx, r, p, err)
	}
	p.n, p.version = first.left, first.version
	return &s3Stream{ctx: ctx, s: s, role: r, part: p, body: first.body}, nil
}

// part is the part of an object that is asked for.
type part struct {
	key, full, version string
	off, n             int64 // n < 0: to the end
}

// emptyPart is an empty stream, if the object reaches as far.
func (s *S3) emptyPart(ctx context.Context, p part) (io.ReadCloser, error) {
	o, err := s.head(ctx, s.read, p.key, p.full, p.version)
	if err != nil {
		return nil, err
	}
	if p.n < 0 && p.off != o.Size || p.off > o.Size {
		return nil, fmt.Errorf("get %s: %d bytes from %d of %d: %w", p.key, p.n, p.off, o.Size, ErrBeyond)
	}
	return io.NopCloser(bytes.NewReader(nil)), nil
}

// opened is an answer whose body is still to be read.
type opened struct {
	body    io.ReadCloser
	left    int64 // bytes of it
	version string
}

// open sends one GET and holds the answer's headers against what was asked.
// Its errors are the SDK's.
func (s *S3) open(ctx context.Context, r s3Role, p part) (opened, error) {
	on, ok := onVersion(p.version)
	if !ok {
		return opened{}, notThatVersion("get", p.key, p.version)
	}
	in := &s3.GetObjectInput{Bucket: &s.target.bucket, Key: &p.full, VersionId: on.versionID, IfMatch: on.ifMatch}
	switch {
	case p.n > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", p.off, p.off+p.n-1))
	case p.off > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", p.off))
	}
	out, err := r.GetObject(as(ctx, KindGet, ClassGet), in)
	if err != nil {
		return opened{}, err
	}
	o := opened{body: out.Body, version: versionOf(out.VersionId, out.ETag)}
	if o.left, err = checkAnswer(p, out); err == nil && on.ifMatch != nil && aws.ToString(out.ETag) != p.version {
		err = notThatVersion("get", p.key, p.version) // the server ignored If-Match
	}
	if err != nil {
		_ = out.Body.Close() // not what was asked for
		return opened{}, err
	}
	return o, nil
}

// checkAnswer returns how many bytes an answer brings, if they are those that
// were asked for: some servers ignore ranges, all cut those that end beyond the
// object's end.
func checkAnswer(p part, out *s3.GetObjectOutput) (int64, error) {
	if out.ContentLength == nil || *out.ContentLength < 0 {
		return 0, fmt.Errorf("get %s: the answer has no length", p.key)
	}
	length := *out.ContentLength
	if p.off == 0 && p.n < 0 {
		return length, nil
	}
	from, size, err := contentRange(aws.ToString(out.ContentRange))
	if err != nil || from != p.off {
		return 0, fmt.Errorf("get %s: the server answered a range from %d with %q", p.key, p.off, aws.ToString(out.ContentRange))
	}
	if p.n >= 0 && p.n > size-p.off {
		return 0, fmt.Errorf("get %s: %d bytes from %d of %d: %w", p.key, p.n, p.off, size, ErrBeyond)
	}
	if p.n >= 0 && length != p.n || p.n < 0 && length != size-p.off {
		return 0, fmt.Errorf("get %s: %d bytes from %d of %d answered with %d", p.key, p.n, p.off, size, length)
	}
	return length, nil
}

// contentRange reads "bytes from-to/size".
func contentRange(h string) (from, size int64, err error) {
	span, total, ok := strings.Cut(strings.TrimPrefix(h, "bytes "), "/")
	first, _, okSpan := strings.Cut(span, "-")
	if !ok || !okSpan {
		return 0, 0, fmt.Errorf("content range %q", h)
	}
	from, errFrom := strconv.ParseInt(first, 10, 64)
	size, errSize := strconv.ParseInt(total, 10, 64)
	return from, size, errors.Join(errFrom, errSize)
}

// getFailed explains a GET that failed.
func (s *S3) getFailed(ctx context.Context, r s3Role, p part, err error) error {
	switch {
	case errors.Is(err, ErrReplaced), errors.Is(err, ErrBeyond):
		return err
	case refusedCondition(err):
		return notThatVersion("get", p.key, p.version)
	case errStatus(err) == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("get %s: %d bytes from %d: %w", p.key, p.n, p.off, ErrBeyond)
	default:
		return s.explain(ctx, call{"get", p.key, r, rightGet}, err)
	}
}

// getSmall reads a small part as a whole, hedged.
func (s *S3) getSmall(ctx context.Context, p part) ([]byte, error) {
	b, err := s.hedged(ctx, func(ctx context.Context) ([]byte, error) { return s.readSmall(ctx, p) })
	if err != nil {
		return nil, s.getFailed(ctx, s.read, p, err)
	}
	return b, nil
}

// readSmall reads a small part, again when its body breaks.
func (s *S3) readSmall(ctx context.Context, p part) ([]byte, error) {
	b := make([]byte, p.n)
	for try := 1; ; try++ {
		o, err := s.open(ctx, s.read, p)
		if err != nil {
			return nil, err
		}
		_, err = io.ReadFull(o.body, b)
		_ = o.body.Close() // all that was wanted of it has been read, or it failed
		if err == nil {
			return b, nil
		}
		if err = noEOF(err); try == resumes || ctx.Err() != nil {
			return nil, fmt.Errorf("the answer broke: %w", err)
		}
	}
}

// noEOF turns the end of a body that came too early into the error it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// s3Stream is the stream of a Get. It ends with io.EOF after exactly the bytes
// that were asked for, all of one version.
type s3Stream struct {
	ctx   context.Context // the stream belongs to the Get that made it
	s     *S3
	role  s3Role
	part  part          // what is still to come
	body  io.ReadCloser // nil after a resumption that failed
	tries int           // resumptions since bytes last came
	err   error         // once broken, it stays so
}

func (r *s3Stream) Read(p []byte) (int, error) {
	for {
		if r.err != nil {
			return 0, r.err
		}
		if r.part.n == 0 {
			return 0, io.EOF
		}
		if int64(len(p)) > r.part.n {
			p = p[:r.part.n]
		}
		n, err := r.body.Read(p)
		if n > 0 {
			r.part.off, r.part.n, r.tries = r.part.off+int64(n), r.part.n-int64(n), 0
		}
		if err != nil && r.part.n > 0 {
			r.err = r.resume(noEOF(err))
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
}

// resume asks for the rest of the stream, of the very version it has.
func (r *s3Stream) resume(broke error) error {
	for r.tries < resumes && r.ctx.Err() == nil {
		r.tries++
		_ = r.body.Close() // it broke
		next, err := r.s.open(r.ctx, r.role, r.part)
		if err == nil {
			r.body = next.body
			return nil
		}
		r.body = http.NoBody
		if status := errStatus(err); status != 0 && blame(status) == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrBeyond) {
			// The object was whole when the stream began, so this says that it is
			// gone now, not that it was never there.
			return fmt.Errorf("get %s: the stream broke (%w), and the rest is refused: %w", r.part.key, broke, r.s.getFailed(r.ctx, r.role, r.part, err))
		}
		broke = err
	}
	return r.s.getFailed(r.ctx, r.role, r.part, broke)
}

func (r *s3Stream) Close() error {
	if r.err == nil {
		r.err = errors.New("read of a closed stream")
	}
	return r.body.Close()
}
