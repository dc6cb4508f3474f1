package store

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/deploy/dev"
)

// testServer is the S3 server of this package's tests; nil under -short.
var testServer *dev.S3

// withServer runs the tests with an S3 server.
type withServer struct{ m *testing.M }

func (w withServer) Run() int {
	flag.Parse()
	if testing.Short() || os.Getenv(fullDiskDir) != "" {
		return w.m.Run()
	}
	code, err := w.run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (w withServer) run() (code int, err error) {
	dir, err := os.MkdirTemp("", "desnode-store-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if testServer, err = dev.StartS3(context.Background(), dir); err != nil {
		return 0, err
	}
	code = w.m.Run()
	return code, testServer.Stop()
}

// TestMain lets toxiproxy leave its own goroutines behind: it does, where one
// end of a slowed connection is closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(withServer{m},
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}
