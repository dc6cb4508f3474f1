package store

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // Content-MD5 is what S3 calls it; it protects nothing here
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// The checks of content.
const (
	checkVersions  = "exact versions"
	checkRanges    = "ranges"
	checkEmpty     = "empty objects"
	checkChecksums = "checksums"
	checkTrailers  = "trailing checksums"
)

// versions checks that an object's version names its very bytes: Put, Head and
// Get give the same one, and a wrong one is refused.
func (p *probing) versions(ctx context.Context) {
	o, err := p.put(ctx, ProbeWrite, p.pack("version"), probeBytes(1000), nil)
	if err != nil {
		p.failed(checkVersions, "put", err)
		return
	}
	var head *s3.HeadObjectOutput
	err = p.within(ctx, func(ctx context.Context) error {
		head, err = p.clients[ProbeRead].HeadObject(ctx, &s3.HeadObjectInput{Bucket: &p.bucket, Key: &o.key})
		return err
	})
	if err != nil {
		p.failed(checkVersions, "head", err)
		return
	}
	g, err := p.get(ctx, o.key, func(in *s3.GetObjectInput) { in.IfMatch = &o.etag })
	if err != nil && !probeRefused(err) {
		p.failed(checkVersions, "get with If-Match", err)
		return
	}
	f := Finding{Check: checkVersions, Seen: "put, head and get agree on the ETag, and If-Match is obeyed"}
	bad := func(seen string) {
		f.Level, f.Seen = LevelBad, seen
		f.Means = "desnode can't tell a pack from another object at its key, so no original may be deleted on the strength of it"
		f.Set = "take a server, or a proxy before it, that leaves ETags as they are and obeys If-Match"
	}
	switch etag := aws.ToString(head.ETag); {
	case err != nil:
		bad("get with If-Match and the object's own ETag: " + probeExplain(err))
	case o.etag == "" || etag != o.etag || g.etag != o.etag:
		bad(fmt.Sprintf("put said ETag %s, head %s, get %s", o.etag, etag, g.etag))
	case o.version != aws.ToString(head.VersionId):
		bad(fmt.Sprintf("put said version %q, head %q", o.version, aws.ToString(head.VersionId)))
	default:
		wrong := `"` + strings.Repeat("0", 32) + `"`
		if _, err := p.get(ctx, o.key, func(in *s3.GetObjectInput) { in.IfMatch = &wrong }); err == nil {
			bad("get with If-Match and a wrong ETag gave the object all the same")
		}
	}
	p.add(f)
}

// ranges checks that parts of an object come exact, and empty objects work.
func (p *probing) ranges(ctx context.Context) {
	whole := probeBytes(1000)
	o, err := p.put(ctx, ProbeWrite, p.pack("ranges"), whole, nil)
	if err != nil {
		p.failed(checkRanges, "put", err)
		return
	}
	ok := true
	for _, r := range []struct{ header, want, crange string }{
		{"bytes=100-199", string(whole[100:200]), "bytes 100-199/1000"},
		{"bytes=999-", string(whole[999:]), "bytes 999-999/1000"},
		{"bytes=-10", string(whole[990:]), "bytes 990-999/1000"},
		{"bytes=990-2000", string(whole[990:]), "bytes 990-999/1000"},
	} {
		g, err := p.get(ctx, o.key, func(in *s3.GetObjectInput) { in.Range = &r.header })
		switch {
		case err != nil:
			ok = false
			p.failed(checkRanges, r.header, err)
		case string(g.body) != r.want || g.crange != r.crange:
			ok = false
			p.add(Finding{
				Check: checkRanges, Level: LevelBad,
				Seen:  fmt.Sprintf("%s of 1000 bytes gave %d bytes, Content-Range %q", r.header, len(g.body), g.crange),
				Means: "desnode reads every file as a range of its pack: no file could be served",
				Set:   "take a server, or a proxy before it, that answers ranges exactly",
			})
		}
	}
	if beyond, err := p.get(ctx, o.key, func(in *s3.GetObjectInput) { in.Range = aws.String("bytes=1000-1009") }); err == nil {
		ok = false
		p.add(Finding{
			Check: checkRanges, Level: LevelWarn, Seen: fmt.Sprintf("a range beyond the end gave %d bytes in place of 416", len(beyond.body)),
			Means: "a pack that was cut short shows only by its checksums", Set: "",
		})
	}
	if ok {
		p.add(Finding{Check: checkRanges, Seen: "exact, of the end, and refused beyond it"})
	}
	p.empty(ctx)
}

// empty checks an object of no bytes.
func (p *probing) empty(ctx context.Context) {
	o, err := p.put(ctx, ProbeWrite, p.pack("empty"), nil, nil)
	if err == nil {
		var g probeGot
		if g, err = p.get(ctx, o.key, nil); err == nil && len(g.body) > 0 {
			err = fmt.Errorf("%d bytes came back", len(g.body))
		}
	}
	if err != nil {
		p.add(Finding{
			Check: checkEmpty, Level: LevelWarn, Seen: probeExplain(err),
			Means: "packs are never empty; originals on this server that are can't be read", Set: "",
		})
		return
	}
	p.add(Finding{Check: checkEmpty, Seen: "kept and read back"})
}

// crc32cOf returns S3's form of a CRC-32C.
func crc32cOf(b []byte) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
}

// checksums checks that the server compares what it got with what was sent.
func (p *probing) checksums(ctx context.Context) {
	body := probeBytes(1000)
	other := append([]byte{body[0] ^ 1}, body[1:]...)
	sum := func(b []byte) string { s := sha256.Sum256(b); return base64.StdEncoding.EncodeToString(s[:]) }
	md := func(b []byte) string {
		s := md5.Sum(b) //nolint:gosec // as above
		return base64.StdEncoding.EncodeToString(s[:])
	}
	var checked, unchecked []string
	for _, c := range []struct {
		name string
		set  func(in *s3.PutObjectInput, of []byte)
	}{
		{"CRC32C", func(in *s3.PutObjectInput, of []byte) { in.ChecksumCRC32C = aws.String(crc32cOf(of)) }},
		{"SHA256", func(in *s3.PutObjectInput, of []byte) { in.ChecksumSHA256 = aws.String(sum(of)) }},
		{"Content-MD5", func(in *s3.PutObjectInput, of []byte) { in.ContentMD5 = aws.String(md(of)) }},
	} {
		key := p.pack("checksum-" + strings.ToLower(c.name))
		if _, err := p.put(ctx, ProbeWrite, key, body, func(in *s3.PutObjectInput) { c.set(in, other) }); err == nil {
			unchecked = append(unchecked, c.name)
			continue
		}
		if _, err := p.put(ctx, ProbeWrite, key, body, func(in *s3.PutObjectInput) { c.set(in, body) }); err != nil {
			p.add(Finding{
				Check: checkChecksums, Level: LevelWarn, Seen: "a put with a right " + c.name + ": " + probeExplain(err),
				Means: "uploads that carry this checksum fail", Set: "see the server's settings",
			})
			unchecked = append(unchecked, c.name)
			continue
		}
		checked = append(checked, c.name)
	}
	f := Finding{Check: checkChecksums, Seen: "compared: " + strings.Join(checked, ", ")}
	if len(unchecked) > 0 {
		f.Level = LevelWarn
		f.Seen = "not compared: " + strings.Join(unchecked, ", ")
		if len(checked) > 0 {
			f.Seen += "; compared: " + strings.Join(checked, ", ")
		}
		f.Means = "an upload that was damaged on its way is found by the verification after it, not by the server"
		f.Set = "take https, which notices most of it; never delete originals with archive.delete_grace at 0"
	}
	p.add(f)
}

// trailers checks uploads whose checksum follows the content (aws-chunked).
func (p *probing) trailers(ctx context.Context) {
	body := probeBytes(1000)
	f := Finding{Check: checkTrailers, Seen: "compared"}
	_, wrong := p.put(ctx, ProbeWrite, p.pack("trailer"), body, nil, trailing(body, crc32cOf(body[1:])))
	o, right := p.put(ctx, ProbeWrite, p.pack("trailer"), body, nil, trailing(body, crc32cOf(body)))
	switch {
	case right != nil:
		f.Level = LevelUntold
		f.Seen = "not supported: " + probeExplain(right)
		f.Means = "none: desnode sends its checksums ahead of the content; other programs may need trailers"
	case wrong == nil:
		f.Level, f.Seen = LevelWarn, "accepted and not compared"
		f.Means = "programs that rely on trailing checksums are not protected; desnode sends its own ahead of the content"
	}
	if right == nil {
		if g, err := p.get(ctx, o.key, nil); err != nil || !bytes.Equal(g.body, body) {
			f.Level, f.Seen = LevelWarn, fmt.Sprintf("stored as part of the content: %d bytes came back of %d", len(g.body), len(body))
			f.Means = "programs that upload with trailing checksums damage what they write; desnode sends its own ahead of the content"
			f.Set = "keep AWS_REQUEST_CHECKSUM_CALCULATION=WHEN_REQUIRED for other programs on this server"
		}
	}
	p.add(f)
}

// trailing makes a put send body in one chunk with checksum, a CRC-32C, after
// it, unsigned. The SDK itself does so over https alone.
func trailing(body []byte, checksum string) func(*s3.Options) {
	const unsigned = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	framed := fmt.Appendf(nil, "%x\r\n%s\r\n0\r\nx-amz-checksum-crc32c:%s\r\n\r\n", len(body), body, checksum)
	frame := middleware.FinalizeMiddlewareFunc("probeTrailer", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		req, ok := in.Request.(*smithyhttp.Request)
		if !ok {
			return middleware.FinalizeOutput{}, middleware.Metadata{}, fmt.Errorf("unexpected request %T", in.Request)
		}
		req, err := req.SetStream(bytes.NewReader(framed))
		if err != nil {
			return middleware.FinalizeOutput{}, middleware.Metadata{}, err
		}
		req.ContentLength = int64(len(framed))
		req.Header.Set("Content-Length", strconv.Itoa(len(framed)))
		req.Header.Set("Content-Encoding", "aws-chunked")
		req.Header.Set("X-Amz-Decoded-Content-Length", strconv.Itoa(len(body)))
		req.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32c")
		req.Header.Set("X-Amz-Content-Sha256", unsigned)
		in.Request = req
		return next.HandleFinalize(v4.SetPayloadHash(ctx, unsigned), in)
	})
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions[:len(o.APIOptions):len(o.APIOptions)], func(stack *middleware.Stack) error {
			return stack.Finalize.Insert(frame, "Signing", middleware.Before)
		})
	}
}

// notThere reports whether the server said that there is no such thing.
func notThere(err error) bool { return errStatus(err) == http.StatusNotFound }
