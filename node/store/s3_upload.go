package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

// S3's limits of uploads in parts.
const (
	minPart  = 5 << 20
	maxPart  = 5 << 30
	maxParts = 10000
)

// abortTimeout bounds the abort of an upload that failed: who gives up does not
// wait long.
const abortTimeout = 10 * time.Second

// partSize returns the size of an object's parts: the wanted one, or more when
// there would be too many.
func partSize(size, wanted int64) int64 {
	return max(wanted, (size+maxParts-1)/maxParts)
}

// upload is one upload in parts. Begun and not completed, it is invisible and
// billed: who fails aborts it, and what a crash leaves shows in Uploads.
type upload struct {
	s         *S3
	role      s3Role
	key, full string
	body      Body
	size      int64
	partSize  int64
	id        string
}

// send uploads all parts and completes. Its errors are the SDK's.
func (u *upload) send(ctx context.Context, conditional bool) (Object, error) {
	if err := u.create(ctx); err != nil {
		return Object{}, err
	}
	parts, err := u.parts(ctx, u.s.cfg.Parallel)
	if err != nil {
		u.giveUp(ctx)
		return Object{}, err
	}
	version, err := u.complete(ctx, parts, conditional)
	if err != nil {
		u.giveUp(ctx) // when it was completed after all, this changes nothing
		return Object{}, err
	}
	return u.s.created(ctx, u.key, u.full, u.size, version)
}

func (u *upload) create(ctx context.Context) error {
	out, err := u.role.CreateMultipartUpload(as(ctx, KindPut, ClassPut), &s3.CreateMultipartUploadInput{
		Bucket: &u.s.target.bucket, Key: &u.full, ChecksumAlgorithm: checksumWanted,
	})
	if err != nil {
		return err
	}
	if u.id = aws.ToString(out.UploadId); u.id == "" {
		return errors.New("the server began an upload without an id")
	}
	return nil
}

// parts sends all parts, so many at once.
func (u *upload) parts(ctx context.Context, parallel int) ([]types.CompletedPart, error) {
	parts := make([]types.CompletedPart, (u.size+u.partSize-1)/u.partSize)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i := range parts {
		group.Go(func() (err error) {
			parts[i], err = u.part(ctx, i)
			return err
		})
	}
	return parts, group.Wait()
}

func (u *upload) part(ctx context.Context, i int) (types.CompletedPart, error) {
	off := int64(i) * u.partSize
	n := min(u.partSize, u.size-off)
	number := aws.Int32(int32(i + 1))
	sum, err := checksum(ctx, u.body, off, n)
	if err != nil {
		return types.CompletedPart{}, err
	}
	out, err := u.role.UploadPart(as(ctx, KindPut, ClassPut), &s3.UploadPartInput{
		Bucket: &u.s.target.bucket, Key: &u.full, UploadId: &u.id, PartNumber: number,
		Body: newSendBody(u.body, off, n), ContentLength: &n, ChecksumCRC32C: &sum,
	})
	if err != nil {
		return types.CompletedPart{}, err
	}
	// A server that knows the checksum names it in its answer, and wants it again.
	return types.CompletedPart{PartNumber: number, ETag: out.ETag, ChecksumCRC32C: out.ChecksumCRC32C}, nil
}

// complete makes the object of its parts and returns its version.
func (u *upload) complete(ctx context.Context, parts []types.CompletedPart, conditional bool) (string, error) {
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &u.s.target.bucket, Key: &u.full, UploadId: &u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}
	if conditional {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := u.role.CompleteMultipartUpload(as(ctx, KindPut, ClassPut), in)
	if err != nil {
		return "", err
	}
	return versionOf(out.VersionId, out.ETag), nil
}

// giveUp aborts the upload, also when ctx is done.
func (u *upload) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	if err := u.s.abort(ctx, u.role, u.key, u.full, u.id); err != nil {
		u.s.log.Warn("an upload stays open until it is collected", "key", u.key, "error", fmt.Sprint(err))
	}
}
