package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

const (
	rightMove = "s3:GetObject, s3:GetObjectVersion and s3:PutObject (on what is moved, and where to)"
	// copyPart is the size of the parts in which the server copies objects that
	// are too large for one request.
	copyPart = 1 << 30
)

// Move lets the server copy the object, compares the copy with it, and deletes
// exactly the version that was copied. Cut in between, there are two of it, by
// which the repeated Move knows its own work.
func (s *S3) Move(ctx context.Context, from, to string) error {
	fullFrom, errFrom := s.key(ctx, from)
	fullTo, errTo := s.key(ctx, to)
	if err := errors.Join(errFrom, errTo); err != nil {
		return err
	}
	m := moving{s: s, from: from, to: to, fullFrom: fullFrom, fullTo: fullTo}
	var err error
	m.source, err = s.head(ctx, s.collect, from, fullFrom, "")
	if errors.Is(err, ErrNotFound) {
		return m.moved(ctx, err)
	}
	if err != nil || from == to {
		return m.wrap(err)
	}
	err = m.copied(ctx)
	if errors.Is(err, ErrNotFound) { // not there yet
		err = m.copyOnce(ctx)
	}
	if errors.Is(err, errSourceGone) { // another's repetition of this Move was quicker
		return m.moved(ctx, fmt.Errorf("%w: %w", ErrNotFound, err))
	}
	if err == nil {
		err = s.remove(ctx, from, fullFrom, m.source)
	}
	return m.wrap(err)
}

// errSourceGone: the object to be moved is no longer where it just was.
var errSourceGone = errors.New("it is gone from its old key")

// moving is one call of Move.
type moving struct {
	s                *S3
	from, to         string
	fullFrom, fullTo string
	source           headed
}

func (m *moving) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("move %s to %s: %w", m.from, m.to, err)
}

// moved answers a Move whose origin is missing: done before, if the target is
// there.
func (m *moving) moved(ctx context.Context, missing error) error {
	_, err := m.s.head(ctx, m.s.collect, m.to, m.fullTo, "")
	if errors.Is(err, ErrNotFound) {
		err = missing
	}
	return m.wrap(err)
}

// copied looks whether the target holds the source's bytes: ErrNotFound when
// it is missing, ErrExists when it holds others.
func (m *moving) copied(ctx context.Context) error {
	target, err := m.s.head(ctx, m.s.collect, m.to, m.fullTo, "")
	if err != nil {
		return err
	}
	if m.source.Size != target.Size {
		return fmt.Errorf("%s: %w", m.to, ErrExists)
	}
	if target.Size == 0 || m.source.etag != "" && m.source.etag == target.etag {
		return nil
	}
	// ETags differ, too, of objects that were put in other parts or under other
	// keys of encryption.
	same, err := m.sameBytes(ctx, target.Object)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", m.to, err)
	}
	if !same {
		return fmt.Errorf("%s: %w", m.to, ErrExists)
	}
	return nil
}

// sameBytes reads the source and the target.
func (m *moving) sameBytes(ctx context.Context, target Object) (bool, error) {
	a, err := m.read(ctx, part{key: m.from, full: m.fullFrom, version: m.source.Version, n: m.source.Size})
	if errors.Is(err, ErrNotFound) {
		return false, errSourceGone
	}
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := m.read(ctx, part{key: m.to, full: m.fullTo, version: target.Version, n: target.Size})
	if err != nil {
		return false, err
	}
	defer b.Close()
	return sameStream(a, b)
}

// read streams an object that is not empty with the credentials to collect.
func (m *moving) read(ctx context.Context, p part) (io.ReadCloser, error) {
	return m.s.stream(ctx, m.s.collect, p)
}

// copySource names the version to copy, as a header.
func (m *moving) copySource() (source string, ifMatch *string) {
	on, _ := onVersion(m.source.Version)
	source = m.s.target.bucket + "/" + strings.ReplaceAll(url.PathEscape(m.fullFrom), "%2F", "/")
	if on.versionID != nil {
		source += "?versionId=" + url.QueryEscape(*on.versionID)
	}
	return source, on.ifMatch
}

// copyOnce copies to a key that was free, and looks at what stands there then.
func (m *moving) copyOnce(ctx context.Context) error {
	err := m.copy(ctx)
	switch {
	case gone(err):
		return errSourceGone
	case err != nil && !refusedCondition(err):
		return m.s.explain(ctx, call{"copy", m.from, m.s.collect, rightMove}, err)
	}
	if err = m.copied(ctx); errors.Is(err, ErrNotFound) {
		return fmt.Errorf("the copy is missing: %s", err.Error()) // which is no word about the source
	}
	return err
}

// copy lets the server copy. Its errors are the SDK's.
func (m *moving) copy(ctx context.Context) error {
	if m.source.Size > m.s.copyMax {
		return m.copyParts(ctx)
	}
	source, ifMatch := m.copySource()
	in := &s3.CopyObjectInput{Bucket: &m.s.target.bucket, Key: &m.fullTo, CopySource: &source, CopySourceIfMatch: ifMatch, IfNoneMatch: aws.String("*")}
	_, err := m.s.collect.CopyObject(as(ctx, KindMove, ClassPut), in)
	if unsupported(err) { // a server that copies, but not on condition: the key was seen to be free
		in.IfNoneMatch = nil
		_, err = m.s.collect.CopyObject(as(ctx, KindMove, ClassPut), in)
	}
	return err
}

// copyParts copies what is too large for one request.
func (m *moving) copyParts(ctx context.Context) error {
	conditional, err := m.s.ConditionalCreate(ctx)
	if err != nil {
		return err
	}
	u := upload{s: m.s, role: m.s.collect, key: m.to, full: m.fullTo, size: m.source.Size, partSize: min(copyPart, m.s.copyMax)}
	if err := u.create(ctx); err != nil {
		return err
	}
	parts := make([]types.CompletedPart, (u.size+u.partSize-1)/u.partSize)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(m.s.cfg.Parallel)
	for i := range parts {
		group.Go(func() (err error) {
			parts[i], err = m.copyPart(groupCtx, &u, i)
			return err
		})
	}
	if err = group.Wait(); err == nil {
		_, err = u.complete(ctx, parts, conditional)
	}
	if err != nil {
		u.giveUp(ctx)
	}
	return err
}

func (m *moving) copyPart(ctx context.Context, u *upload, i int) (types.CompletedPart, error) {
	source, ifMatch := m.copySource()
	off := int64(i) * u.partSize
	number := aws.Int32(int32(i + 1))
	out, err := m.s.collect.UploadPartCopy(as(ctx, KindMove, ClassPut), &s3.UploadPartCopyInput{
		Bucket: &m.s.target.bucket, Key: &m.fullTo, UploadId: &u.id, PartNumber: number, CopySource: &source, CopySourceIfMatch: ifMatch,
		CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", off, min(off+u.partSize, u.size)-1)),
	})
	if err != nil {
		return types.CompletedPart{}, err
	}
	if out.CopyPartResult == nil {
		return types.CompletedPart{}, errors.New("the server copied a part and did not name it")
	}
	return types.CompletedPart{PartNumber: number, ETag: out.CopyPartResult.ETag, ChecksumCRC32C: out.CopyPartResult.ChecksumCRC32C}, nil
}
