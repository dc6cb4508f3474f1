package router

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/transport"
)

func TestServeReadAnswersFromPacks(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(
		version{name: "x", seq: 1, content: "hello"}, version{name: "empty", seq: 1}, version{name: "big", seq: 1, content: big},
		version{name: "gone", seq: 1, kind: desformat.TypeTombstone},
		version{name: "long type", seq: 1, meta: desformat.Metadata{ContentType: "a/" + strings.Repeat("b", 1100)}},
	)
	w.rows.set(row("unpacked", "1"))
	w.files["/unpacked"] = "not packed yet"
	at := func(off, n int64) *transport.Range { return &transport.Range{Offset: off, Length: n} }
	for _, test := range []struct {
		name    string
		ask     transport.Request
		payload string // "-": none
		place   bool
		err     error
	}{
		{"open", transport.Request{Kind: transport.KindOpen, Name: "x"}, "hello", false, nil},
		{"open of an empty file", transport.Request{Kind: transport.KindOpen, Name: "empty", MaxPayload: 1}, "", false, nil},
		{"open of what is just small enough", transport.Request{Kind: transport.KindOpen, Name: "x", MaxPayload: 5}, "hello", false, nil},
		{"open of what is too large", transport.Request{Kind: transport.KindOpen, Name: "x", MaxPayload: 4}, "-", true, nil},
		{"open of a large file", transport.Request{Kind: transport.KindOpen, Name: "big", MaxPayload: 1 << 20}, "-", true, nil},
		{"open without a bound", transport.Request{Kind: transport.KindOpen, Name: "big"}, big, false, nil},
		{"a range", transport.Request{Kind: transport.KindOpen, Name: "x", Range: at(1, 3)}, "ell", false, nil},
		{"a range of a large file", transport.Request{Kind: transport.KindOpen, Name: "big", Range: at(1<<20, 9), MaxPayload: 9}, big[1<<20 : 1<<20+9], false, nil},
		{"a range that is too large", transport.Request{Kind: transport.KindOpen, Name: "big", Range: at(0, 10), MaxPayload: 9}, "-", true, nil},
		{"a range up to the end", transport.Request{Kind: transport.KindOpen, Name: "x", Range: at(5, 0)}, "", false, nil},
		{"a range behind the end", transport.Request{Kind: transport.KindOpen, Name: "x", Range: at(4, 2)}, "", false, transport.ErrRange},
		{"a range that begins behind the end", transport.Request{Kind: transport.KindOpen, Name: "x", Range: at(6, 0)}, "", false, transport.ErrRange},
		{"stat", transport.Request{Kind: transport.KindStat, Name: "big"}, "-", false, nil},
		{"locate", transport.Request{Kind: transport.KindLocate, Name: "x"}, "-", true, nil},
		{"no record", transport.Request{Kind: transport.KindOpen, Name: "unpacked"}, "", false, transport.ErrNotFound},
		{"a tombstone", transport.Request{Kind: transport.KindOpen, Name: "gone"}, "", false, transport.ErrGone},
		{"an index to come", transport.Request{Kind: transport.KindOpen, Name: "x", MinIndex: 2}, "", false, transport.ErrDeclined},
		{"a name that can't be", transport.Request{Kind: transport.KindOpen, Name: "a//b"}, "", false, transport.ErrInvalid},
		{"an id", transport.Request{Kind: transport.KindOpen, ID: "7"}, "", false, transport.ErrUnsupported},
		{"a header that the answer has no room for", transport.Request{Kind: transport.KindOpen, Name: "long type"}, "", false, transport.ErrUnsupported},
	} {
		for _, node := range w.order { // an owner, and one that is not
			t.Run(test.name+"/"+string(node), func(t *testing.T) {
				n := w.nodes[node]
				reply, err := n.router.ServeRead(t.Context(), "z", &test.ask)
				if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
					t.Fatalf("error %v, want %v", err, test.err)
				}
				var said *transport.RemoteError
				if errors.As(err, &said) && said.Status != transport.StatusInvalid && said.Applied != 1 {
					t.Errorf("answered at index %d, want 1", said.Applied)
				}
				if err != nil {
					return
				}
				if got := payloadOf(t, reply); got != test.payload {
					t.Errorf("%d bytes of payload %.20q, want %d", len(got), got, len(test.payload))
				}
				if (reply.Location != nil) != test.place {
					t.Errorf("place %+v", reply.Location)
				}
				if test.payload != "-" && test.ask.Range != nil && (reply.Range == nil || *reply.Range != *test.ask.Range) {
					t.Errorf("range %v, want %v", reply.Range, test.ask.Range)
				}
				if reply.Applied != 1 || reply.Origin != transport.OriginPack || reply.Name != test.ask.Name || reply.ETag != "" {
					t.Errorf("response %+v", reply.Response)
				}
			})
		}
	}
	a := w.nodes["a"].router
	for status, want := range map[string]int{"ok": 12, "not-found": 1, "gone": 1, "declined": 1, "invalid": 1, "unsupported": 2, "range": 2, "other": 0} {
		if got := int(testutil.ToFloat64(a.metrics.answers[status])); got != want {
			t.Errorf("%d answers are counted as %s, want %d", got, status, want)
		}
	}
	if a, b := w.nodes["a"].asked.Load(), w.nodes["b"].asked.Load(); a+b != 0 {
		t.Errorf("a question was passed on: %d, %d", a, b)
	}
	if got := w.rows.questions(); got != 0 {
		t.Errorf("the source was asked %d times", got)
	}
}

// payloadOf returns a reply's payload; "-": it has none.
func payloadOf(t *testing.T, r *transport.Reply) string {
	t.Helper()
	switch {
	case r.Data != nil && r.Body != nil:
		t.Fatal("two payloads")
	case r.Data != nil:
		return string(r.Data)
	case r.Body == nil:
		return "-"
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != r.Length {
		t.Errorf("%d bytes of %d announced", len(b), r.Length)
	}
	return string(b)
}

// The owner answers though there is no quorum, and costs the client's limit on
// misses nothing: it has none.
func TestServeReadNeedsNoQuorum(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "hello"})
	w.quorum.Store(false)
	w.nodes["b"].wantRead(t, "x", "hello")
	w.nodes["b"].wantRoutes(t, map[string]int{"owner": 1})
}
