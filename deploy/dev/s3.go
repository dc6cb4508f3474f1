package dev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// The root account of the S3 server.
const (
	S3AccessKey = "desnode-dev"
	S3SecretKey = "desnode-dev-secret" //nolint:gosec // the password of a server on loopback
	S3Region    = "us-east-1"
)

// S3 is a running S3 server (versitygw over a folder).
type S3 struct {
	// Endpoint is its address, http://127.0.0.1:port, which stays through Stop
	// and Start.
	Endpoint string
	Port     int

	dir  string
	gw   string
	proc *process
}

// StartS3 starts an S3 server that keeps its buckets below dir. Its root
// account is S3AccessKey; other accounts can be made through its admin API.
func StartS3(ctx context.Context, dir string) (*S3, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	s := &S3{dir: dir, gw: filepath.Join(root, "bin", "versitygw")}
	if _, err := os.Stat(s.gw); err != nil {
		return nil, fmt.Errorf("s3: %w: run `make test-deps`", err)
	}
	for _, sub := range []string{"buckets", "versions", "accounts"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o750); err != nil {
			return nil, fmt.Errorf("s3: %w", err)
		}
	}
	if s.Port, err = portOf(ctx, dir); err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	s.Endpoint = "http://" + s.Addr()
	return s, s.Start(ctx)
}

// Start starts a server that was stopped, and waits until it answers.
func (s *S3) Start(ctx context.Context) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.gw, //nolint:gosec // the server we built
		"--access", S3AccessKey, "--secret", S3SecretKey, "--region", S3Region,
		"--port", s.Addr(), "--quiet", "--keep-alive", "--health", "/health",
		"--iam-dir", filepath.Join(s.dir, "accounts"),
		"posix", "--versioning-dir", filepath.Join(s.dir, "versions"), filepath.Join(s.dir, "buckets"))
	var err error
	if s.proc, err = run(s.dir, "s3", cmd); err != nil {
		return err
	}
	return s.proc.ready(ctx, s.answers)
}

func (s *S3) answers(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/health", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// MakeBucket makes an empty bucket without versioning; fs.ErrExist when it is
// there.
func (s *S3) MakeBucket(name string) error {
	return os.Mkdir(filepath.Join(s.dir, "buckets", name), 0o750)
}

// BucketURL is the URL of a bucket as store.url takes it.
func (s *S3) BucketURL(bucket string) string {
	return fmt.Sprintf("s3://%s?endpoint=%s&region=%s", bucket, s.Endpoint, S3Region)
}

// Stop ends the server; its objects stay.
func (s *S3) Stop() error { return s.proc.stop(syscall.SIGTERM) }

// Kill ends the server as a power cut would.
func (s *S3) Kill() error { return s.proc.stop(syscall.SIGKILL) }

// Addr is its address, host:port.
func (s *S3) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }
