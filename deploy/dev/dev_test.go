package dev_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, addr string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

func TestServersStopAndStartAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out Postgres and S3")
	}
	pg, err := dev.StartPostgres(t.Context(), devtest.Folder(t))
	if err != nil {
		t.Fatal(err)
	}
	s3, err := dev.StartS3(t.Context(), devtest.Folder(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []struct {
		name  string
		addr  string
		stop  func() error
		start func(context.Context) error
	}{
		{"postgres", pg.Addr(), pg.Stop, pg.Start},
		{"s3", s3.Addr(), s3.Stop, s3.Start},
	} {
		t.Run(server.name, func(t *testing.T) {
			for range 2 {
				if err := dial(t, server.addr); err != nil {
					t.Fatalf("started: %v", err)
				}
				if err := server.stop(); err != nil {
					t.Fatal(err)
				}
				if dial(t, server.addr) == nil {
					t.Error("stopped, and answers")
				}
				if err := server.start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := server.stop(); err != nil {
				t.Error(err)
			}
		})
	}
	http.DefaultClient.CloseIdleConnections()
}
