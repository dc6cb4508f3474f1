package objectstest

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBucket(t *testing.T) {
	for _, c := range []struct {
		name string
		kind Kind
	}{{"plain", Plain}, {"versioned", Versioned}, {"careless", Careless}} {
		t.Run(c.name, func(t *testing.T) {
			Run(t, func(t *testing.T) Subject {
				b := New(t, c.kind)
				return Subject{
					Objects: b,
					Put:     func(key, content string) { b.Put(key, content, time.Now()) },
					Deletes: c.kind != Careless,
				}
			})
		})
	}
}
