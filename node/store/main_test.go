package store

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
)

// testServer is the S3 server of this package's tests; nil under -short.
var testServer *dev.S3

// TestMain lets toxiproxy leave its own goroutines behind: it does, where one
// end of a slowed connection is closed.
func TestMain(m *testing.M) {
	servers := devtest.Servers{S3: &testServer}
	if os.Getenv(fullDiskDir) != "" { // the child that fills a disk needs none
		servers = devtest.Servers{}
	}
	goleak.VerifyTestMain(devtest.With(m, servers),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"))
}
