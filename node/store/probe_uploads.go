package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const checkUploads = "multipart uploads"

// startUpload begins a multipart upload of one part.
func (p *probing) startUpload(ctx context.Context, key string, body []byte) (string, types.CompletedPart, error) {
	ctx, cancel := context.WithTimeout(ctx, probeRequestTimeout)
	defer cancel()
	client := p.clients[ProbeWrite]
	begun, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &p.bucket, Key: &key})
	if err != nil {
		return "", types.CompletedPart{}, err
	}
	id := aws.ToString(begun.UploadId)
	part, err := p.uploadPart(ctx, key, id, body)
	return id, part, err
}

func (p *probing) uploadPart(ctx context.Context, key, id string, body []byte) (types.CompletedPart, error) {
	sent, err := p.clients[ProbeWrite].UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &p.bucket, Key: &key, UploadId: &id, PartNumber: aws.Int32(1),
		Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
	})
	if err != nil {
		return types.CompletedPart{}, err
	}
	return types.CompletedPart{PartNumber: aws.Int32(1), ETag: sent.ETag}, nil
}

// abort ends an upload, as its writer may.
func (p *probing) abort(ctx context.Context, key, id string) error {
	return p.within(ctx, func(ctx context.Context) error {
		_, err := p.clients[ProbeWrite].AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &p.bucket, Key: &key, UploadId: &id})
		return err
	})
}

// openUploads lists the ids of the open uploads of key, as the collector does.
func (p *probing) openUploads(ctx context.Context, key string) ([]string, error) {
	var ids []string
	err := p.within(ctx, func(ctx context.Context) error {
		out, err := p.clients[ProbeCollect].ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &p.bucket, Prefix: &key})
		if err != nil {
			return err
		}
		for _, u := range out.Uploads {
			if aws.ToString(u.Key) == key {
				ids = append(ids, aws.ToString(u.UploadId))
			}
		}
		return nil
	})
	return ids, err
}

// uploads checks that open uploads are seen, and end when they are aborted.
func (p *probing) uploads(ctx context.Context) {
	key := p.pack("upload")
	id, _, err := p.startUpload(ctx, key, probeBytes(100))
	if err != nil {
		p.failed(checkUploads, "start", err)
		return
	}
	f := Finding{Check: checkUploads, Seen: "started and aborted"}
	hidden := func(seen string) {
		if f.Level != LevelOK {
			return // the first tells most
		}
		f.Level, f.Seen = LevelWarn, seen
		f.Means = "uploads that were cut stay and are paid for, and nobody sees them"
		f.Set = "give the bucket a lifecycle rule that aborts incomplete uploads after 7 days"
	}
	if p.has(ProbeCollect) {
		f.Seen = "listed and aborted"
		before, err := p.openUploads(ctx, key)
		switch {
		case err != nil:
			hidden("open uploads can't be listed: " + probeExplain(err))
		case !slices.Contains(before, id):
			hidden("an open upload is not listed")
		}
	}
	if err := p.abort(ctx, key, id); err != nil {
		p.failed(checkUploads, "abort", err)
		return
	}
	if p.has(ProbeCollect) && f.Level == LevelOK {
		after, err := p.openUploads(ctx, key)
		if err != nil || slices.Contains(after, id) {
			hidden(fmt.Sprintf("an aborted upload is still listed (%s)", probeExplain(err)))
		}
	}
	if _, err := p.uploadPart(ctx, key, id, probeBytes(100)); err == nil {
		hidden("a part could be sent to an aborted upload")
	}
	p.add(f)
}
