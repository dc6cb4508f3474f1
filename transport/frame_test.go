package transport

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// vector is a golden frame: its bytes never change.
type vector struct {
	name string
	kind frameKind
	msg  any
}

func vectors() []vector {
	at := time.Date(2024, 2, 29, 23, 59, 59, 123456789, time.UTC)
	var sum [32]byte
	var pack [16]byte
	for i := range sum {
		sum[i] = byte(i)
	}
	for i := range pack {
		pack[i] = byte(0xf0 + i)
	}
	full := answerHead{
		status: StatusOK, hasPayload: true, payload: 300,
		Response: Response{
			Applied: 42, Name: "dokumenty/ząb.pdf", ID: "17", Source: "docs", Size: 1 << 33, SHA256: sum,
			Modified: at, Created: at.AddDate(-60, 0, 0), ContentType: "application/pdf", Metadata: []byte(`{"k":1}`),
			Pack: pack, Ordinal: 9, SeqGeneration: 1, SeqIndex: 77, ArchiveVersion: 3, Retention: "r7",
			Range: &Range{100, 300}, ETag: `W/"x"`, Origin: OriginPack,
		},
	}
	located := answerHead{
		status:   StatusOK,
		Response: Response{Size: 5 << 20, Location: &Location{Key: "packs/3a-8/1-77-x.des", VersionID: "v1", Offset: 84, Length: 5<<20 + 200}},
	}
	return []vector{
		{"request-open", frameRequest, &Request{
			Kind: KindOpen, Name: "dokumenty/ząb.pdf", Range: &Range{100, 300}, MinIndex: 41, Hops: 1,
			RequestID: "r-1", Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Timeout: 250 * time.Millisecond, MaxPayload: 1 << 20,
		}},
		{"request-locate-id", frameRequest, &Request{Kind: KindLocate, ID: "17", Source: "docs", Timeout: time.Second}},
		{"response-record", frameResponse, &full},
		{"response-location", frameResponse, &located},
		{"response-declined", frameResponse, &answerHead{
			status: StatusDeclined, code: "behind", detail: "applied 41", retryAfter: 20 * time.Millisecond, Response: Response{Applied: 41},
		}},
		{"chunk", frameChunk, []byte("payload")},
		{"trailer", frameTrailer, &trailer{status: StatusOK, sum: 0x11223344, sent: 300}},
		{"trailer-corrupt", frameTrailer, &trailer{status: StatusCorrupt, code: "corrupt", detail: "chunk 3", sum: 1, sent: 100}},
		{"join", frameJoin, &joinRequest{TokenID(pack), "4b7c", sum[:], []byte("csr")}},
		{"renewal", frameRenewal, []byte("csr")},
		{"admission", frameAdmission, &verdict{status: admitOK, Admission: Admission{
			Cluster: "c1", Certificate: []byte("cert"), CA: []byte("ca"), Secret: sum, GossipKeys: [][]byte{{1, 2}, {3}}, Settings: []byte("{}"),
		}}},
		{"call", frameCall, &callHead{method: "meta", timeout: 250 * time.Millisecond, length: 80 << 20}},
		{"call-empty", frameCall, &callHead{method: "hello-world", timeout: time.Second}},
		{"admission-refused", frameAdmission, &verdict{status: admitExpired, detail: "since yesterday"}},
	}
}

func encode(msg any, kind frameKind) ([]byte, error) {
	switch m := msg.(type) {
	case *Request:
		return appendRequest(nil, m)
	case *answerHead:
		return appendResponse(nil, m)
	case *trailer:
		return appendTrailer(nil, m)
	case *joinRequest:
		return appendJoin(nil, m)
	case *verdict:
		return appendAdmission(nil, m)
	case *callHead:
		return appendCall(nil, m)
	case []byte:
		if kind == frameRenewal {
			return appendRenewal(nil, m)
		}
		return appendChunk(nil, m)
	}
	return nil, fmt.Errorf("no encoder for %T", msg)
}

func decode(kind frameKind, body []byte) (any, error) {
	switch kind {
	case frameRequest:
		return parseRequest(body)
	case frameResponse:
		return parseResponse(body)
	case frameTrailer:
		return parseTrailer(body)
	case frameJoin:
		return parseJoin(body)
	case frameAdmission:
		return parseAdmission(body)
	case frameRenewal:
		return parseRenewal(body)
	case frameCall:
		return parseCall(body)
	}
	return bytes.Clone(body), nil
}

func allKinds() []frameKind {
	return []frameKind{frameRequest, frameResponse, frameChunk, frameTrailer, frameJoin, frameAdmission, frameRenewal, frameCall}
}

func decodeFrame(b []byte) (frameKind, any, error) {
	var buf []byte
	r := bytes.NewReader(b)
	kind, body, err := readFrame(r, &buf, allKinds()...)
	if err != nil {
		return kind, nil, err
	}
	msg, err := decode(kind, body)
	return kind, msg, err
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	return goldenHex(t, "frames", name)
}

func goldenHex(t testing.TB, dir, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", dir, name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenFrames(t *testing.T) {
	for _, v := range vectors() {
		t.Run(v.name, func(t *testing.T) {
			want := golden(t, v.name)
			got, err := encode(v.msg, v.kind)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("encoded as %x, %v", got, err)
			}
			kind, msg, err := decodeFrame(want)
			if err != nil || kind != v.kind || !reflect.DeepEqual(msg, v.msg) {
				t.Fatalf("decoded as %+v, %v", msg, err)
			}
			for n := range want {
				if _, _, err := decodeFrame(want[:n]); !errors.Is(err, io.ErrUnexpectedEOF) && (n > 0 || !errors.Is(err, io.EOF)) {
					t.Fatalf("cut at %d: %v", n, err)
				}
				for bit := range 8 {
					flipped := bytes.Clone(want)
					flipped[n] ^= 1 << bit
					_, msg, err := decodeFrame(flipped)
					switch {
					case errors.Is(err, ErrChecksum), errors.Is(err, ErrVersion), errors.Is(err, ErrMalformed), errors.Is(err, ErrTooLarge), errors.Is(err, io.ErrUnexpectedEOF):
					default:
						t.Fatalf("bit %d of byte %d flipped: %+v, %v", bit, n, msg, err)
					}
				}
			}
		})
	}
	files, err := filepath.Glob("testdata/frames/*.hex")
	if err != nil || len(files) != len(vectors()) {
		t.Errorf("%d golden files for %d vectors, %v", len(files), len(vectors()), err)
	}
}

// What a newer version may add: a plain field is skipped, a critical one refused.
func TestUnknownFields(t *testing.T) {
	for _, kind := range allKinds() {
		if kind == frameChunk {
			continue
		}
		for _, v := range vectors() {
			if v.kind != kind {
				continue
			}
			body := golden(t, v.name)[frameHeaderBytes:]
			f := fields(bytes.Clone(body))
			f.text(0x7000, "new")
			if msg, err := decode(kind, f); err != nil || !reflect.DeepEqual(msg, v.msg) {
				t.Errorf("%s with an unknown field: %+v, %v", v.name, msg, err)
			}
			f = fields(bytes.Clone(body))
			f.text(0x7000|critical, "new")
			if _, err := decode(kind, f); !errors.Is(err, ErrVersion) {
				t.Errorf("%s with an unknown critical field: %v", v.name, err)
			}
			f = append(bytes.Clone(body), body...)
			if _, err := decode(kind, f); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s twice: %v", v.name, err)
			}
		}
	}
}

func TestReadFrameBounds(t *testing.T) {
	for _, kind := range allKinds() {
		body := make([]byte, kind.bound()+1)
		b, at := openFrame(nil)
		if _, err := sealFrame(append(b, body...), at, kind); !errors.Is(err, ErrTooLarge) {
			t.Errorf("kind %d writes a body of %d: %v", kind, len(body), err)
		}
		b, at = openFrame(nil)
		whole, err := sealFrame(append(b, body[1:]...), at, kind)
		if err != nil {
			t.Fatal(err)
		}
		var buf []byte
		if _, got, err := readFrame(bytes.NewReader(whole), &buf, kind); err != nil || len(got) != kind.bound() {
			t.Errorf("kind %d, longest body: %d bytes, %v", kind, len(got), err)
		}
		whole[0]++
		if kind.bound()&0xff == 0xff {
			t.Fatal("the bound's low byte runs over")
		}
		buf = nil
		if _, _, err := readFrame(bytes.NewReader(whole), &buf, kind); !errors.Is(err, ErrTooLarge) || cap(buf) > 4<<10 {
			t.Errorf("kind %d reads a body beyond its bound: %v, buffer %d", kind, err, cap(buf))
		}
		// A length that no bytes follow does not make the receiver allocate it.
		whole[0]--
		buf = nil
		if _, _, err := readFrame(bytes.NewReader(whole[:frameHeaderBytes]), &buf, kind); !errors.Is(err, io.ErrUnexpectedEOF) || cap(buf) > chunkBytes {
			t.Errorf("kind %d announced only: %v, buffer %d", kind, err, cap(buf))
		}
	}
	var buf []byte
	if _, _, err := readFrame(bytes.NewReader(golden(t, "trailer")), &buf, frameChunk); !errors.Is(err, ErrMalformed) {
		t.Errorf("a trailer where a chunk was expected: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	for _, v := range vectors() {
		f.Add(golden(f, v.name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, msg, err := decodeFrame(b)
		if err != nil {
			return
		}
		again, err := encode(msg, kind)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", msg, err)
		}
		_, back, err := decodeFrame(again)
		if err != nil || !reflect.DeepEqual(back, msg) {
			t.Fatalf("%+v came back as %+v, %v", msg, back, err)
		}
	})
}

// FuzzMessage starts behind the frame's checksum.
func FuzzMessage(f *testing.F) {
	for _, v := range vectors() {
		f.Add(byte(v.kind), golden(f, v.name)[frameHeaderBytes:])
	}
	f.Fuzz(func(t *testing.T, k byte, body []byte) {
		kind := frameKind(k)
		if kind.bound() == 0 || len(body) > kind.bound() {
			return
		}
		msg, err := decode(kind, body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLate) {
				t.Fatalf("an undocumented error: %v", err)
			}
			return
		}
		again, err := encode(msg, kind)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", msg, err)
		}
		if back, err := decode(kind, again[frameHeaderBytes:]); err != nil || !reflect.DeepEqual(back, msg) {
			t.Fatalf("%+v came back as %+v, %v", msg, back, err)
		}
	})
}

func TestSeedCorpora(t *testing.T) {
	for _, target := range []string{"FuzzFrame", "FuzzMessage", "FuzzToken", "FuzzSealed"} {
		files, err := filepath.Glob(filepath.Join("testdata", "fuzz", target, "*"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no seed corpus: %v", target, err)
		}
	}
}
