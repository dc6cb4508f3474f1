package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// What is known about a server's conditions.
const (
	conditionUnknown uint32 = iota
	conditionHeld
	conditionIgnored
)

// causeProbe is the cause of the requests that find out what a server knows.
const causeProbe = "probe"

// probeObjectBytes is what the object at ProbeKey holds, always.
var probeObjectBytes = []byte("desnode: this object shows whether the store creates on condition. Leave it.\n")

// ConditionalCreate finds out whether the store creates on condition, in one
// request and in several, once.
//
// It tries to create an object where one is: the one at ProbeKey, which the
// first to ask creates. Any number of nodes may ask at once, since all send
// the same bytes. That costs one refused request, and for uploads in parts,
// which some servers treat otherwise, four more.
func (s *S3) ConditionalCreate(ctx context.Context) (bool, error) {
	s.probing.Lock()
	defer s.probing.Unlock()
	if known := s.conditional.Load(); known != conditionUnknown {
		return known == conditionHeld, nil
	}
	ctx = WithCause(ctx, causeProbe)
	role := s.write
	held, err := s.tryCondition(ctx, role)
	var missing *credentialsError
	if !s.cfg.NoCollect && (errors.Is(err, ErrAccess) || errors.As(err, &missing)) { // a node that only keeps may have no right to put
		role = s.collect
		held, err = s.tryCondition(ctx, role)
	}
	if err != nil {
		return false, err
	}
	if !held {
		s.log.Warn("the store ignores If-None-Match: a put looks first, and can't exclude another writer; originals are not deleted")
		s.conditional.Store(conditionIgnored)
		return false, nil
	}
	s.conditional.Store(conditionHeld)
	return true, nil
}

// tryCondition asks both ways of creating an object.
func (s *S3) tryCondition(ctx context.Context, r s3Role) (bool, error) {
	// The first may create the object; the second must then be refused.
	for range 2 {
		made, err := s.createProbe(ctx, r)
		if err != nil {
			if unsupported(err) {
				return false, nil
			}
			return false, s.explain(ctx, call{"probe: put", ProbeKey, r, rightPut}, err)
		}
		if !made {
			return s.tryComplete(ctx, r)
		}
	}
	return false, nil
}

// createProbe creates the probe object on condition; false: it is there.
func (s *S3) createProbe(ctx context.Context, r s3Role) (bool, error) {
	_, err := r.PutObject(as(ctx, KindPut, ClassPut), &s3.PutObjectInput{
		Bucket: &s.target.bucket, Key: aws.String(s.target.prefix + ProbeKey), Body: bytes.NewReader(probeObjectBytes),
		ContentLength: aws.Int64(int64(len(probeObjectBytes))), IfNoneMatch: aws.String("*"),
	})
	if refusedCondition(err) {
		return false, nil
	}
	return err == nil, err
}

// tryComplete tries to complete an upload in parts over the probe object. A
// server that ignores the condition puts the same bytes there.
func (s *S3) tryComplete(ctx context.Context, r s3Role) (bool, error) {
	u := upload{s: s, role: r, key: ProbeKey, full: s.target.prefix + ProbeKey, size: int64(len(probeObjectBytes)), partSize: int64(len(probeObjectBytes)), body: bytes.NewReader(probeObjectBytes)}
	if err := u.create(ctx); err != nil {
		return false, err
	}
	parts, err := u.parts(ctx, 1)
	if err == nil {
		_, err = u.complete(ctx, parts, true)
	}
	switch {
	case err == nil:
		return false, nil
	case refusedCondition(err):
		u.giveUp(ctx)
		return true, nil
	case unsupported(err):
		u.giveUp(ctx)
		return false, nil
	default:
		u.giveUp(ctx)
		return false, s.explain(ctx, call{"probe: upload", ProbeKey, r, rightPut}, err)
	}
}

// findDeleteMatch finds out whether the store deletes on condition (If-Match),
// once: it asks to delete the probe object under an ETag that it does not have.
// A server that ignores the condition deletes it, and the next probe makes it
// again.
func (s *S3) findDeleteMatch(ctx context.Context) (bool, error) {
	s.probing.Lock()
	defer s.probing.Unlock()
	if known := s.deleteMatch.Load(); known != conditionUnknown {
		return known == conditionHeld, nil
	}
	ctx = WithCause(ctx, causeProbe)
	_, err := s.createProbe(ctx, s.write)
	if status := errStatus(err); status == http.StatusForbidden {
		_, err = s.createProbe(ctx, s.collect)
	}
	if err != nil && !unsupported(err) {
		return false, s.explain(ctx, call{"probe: put", ProbeKey, s.collect, rightPut}, err)
	}
	_, err = s.collect.DeleteObject(as(ctx, KindDelete, ClassFree), &s3.DeleteObjectInput{
		Bucket: &s.target.bucket, Key: aws.String(s.target.prefix + ProbeKey), IfMatch: aws.String(`"00000000000000000000000000000000"`),
	})
	switch {
	case refusedCondition(err):
		s.deleteMatch.Store(conditionHeld)
		return true, nil
	case err == nil, unsupported(err):
		s.deleteMatch.Store(conditionIgnored)
		return false, nil
	default:
		return false, s.explain(ctx, call{"probe: delete", ProbeKey, s.collect, "s3:DeleteObject"}, err)
	}
}

// castagnoli is CRC32C's table.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// checksumWanted is what the parts of an upload are checked by.
const checksumWanted = types.ChecksumAlgorithmCrc32c

// DeleteVersion removes that very version of the object at key and no other,
// with the credentials to collect: by its version id, or, when version is an
// ETag, under If-Match. Deleting what is not there is no error. ErrReplaced:
// another version stands there now, and stays. errors.ErrUnsupported: the
// server ignores If-Match, or can't be tried as it takes the right to put the
// object at ProbeKey; nothing is deleted.
func (s *S3) DeleteVersion(ctx context.Context, key, version string) error {
	full, err := s.key(ctx, key)
	if err != nil {
		return err
	}
	on, ok := onVersion(version)
	if !ok || version == "" {
		return fmt.Errorf("delete %s: version %q: no version that a store gives", key, version)
	}
	if on.ifMatch != nil {
		held, err := s.findDeleteMatch(ctx)
		if errors.Is(err, ErrAccess) {
			return fmt.Errorf("delete %s: whether the store deletes on condition can't be tried: %w: %w", key, err, errors.ErrUnsupported)
		}
		if err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
		if !held {
			return fmt.Errorf("delete %s: the store ignores If-Match: %w", key, errors.ErrUnsupported)
		}
	}
	return s.deleteVersion(ctx, key, full, on, version)
}

func (s *S3) deleteVersion(ctx context.Context, key, full string, on condition, version string) error {
	_, err := s.collect.DeleteObject(as(ctx, KindDelete, ClassFree), &s3.DeleteObjectInput{
		Bucket: &s.target.bucket, Key: &full, VersionId: on.versionID, IfMatch: on.ifMatch,
	})
	switch {
	case err == nil, gone(err):
		return nil
	case refusedCondition(err):
		return notThatVersion("delete", key, version)
	}
	if on.versionID != nil && errStatus(err) == http.StatusBadRequest {
		// Some servers take an id that is gone for one that never was.
		if _, errHead := s.head(ctx, s.collect, key, full, version); errors.Is(errHead, ErrNotFound) {
			return nil
		}
	}
	return s.explain(ctx, call{"delete", key, s.collect, rightDelete}, err)
}

// Delete removes the object, its bytes included: in a bucket with versions the
// one that is there, as else it would only be hidden, and billed for ever.
func (s *S3) Delete(ctx context.Context, key string) error {
	full, err := s.key(ctx, key)
	if err != nil {
		return err
	}
	o, err := s.head(ctx, s.collect, key, full, "")
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.remove(ctx, key, full, o)
}

// remove deletes the version that was seen. Without a version id it needs no
// condition: objects are never replaced, so the one there is the one seen.
func (s *S3) remove(ctx context.Context, key, full string, seen headed) error {
	if seen.id != "" {
		return s.deleteVersion(ctx, key, full, condition{versionID: &seen.id}, seen.Version)
	}
	out, err := s.collect.DeleteObject(as(ctx, KindDelete, ClassFree), &s3.DeleteObjectInput{Bucket: &s.target.bucket, Key: &full})
	if gone(err) {
		return nil
	}
	if err != nil {
		return s.explain(ctx, call{"delete", key, s.collect, rightDelete}, err)
	}
	if !aws.ToBool(out.DeleteMarker) {
		return nil
	}
	// Put before the bucket had versions: so far it is only hidden. The marker
	// goes last, as what it hides would show again.
	for _, id := range []*string{aws.String("null"), out.VersionId} {
		if err := s.deleteVersion(ctx, key, full, condition{versionID: id}, aws.ToString(id)); err != nil {
			return err
		}
	}
	return nil
}
