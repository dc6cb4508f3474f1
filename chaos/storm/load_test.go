package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/deploy/dev"
)

// TestReadsDoNotWaitForAnswers: while no node answers, as many reads are sent
// as before, and each latency counts from the read's moment.
func TestReadsDoNotWaitForAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, doors := newScene(t, 2)
		f := placedFile(t, s, 1)
		for _, d := range doors {
			d.set(func(req *http.Request) (*http.Response, error) {
				if time.Since(s.timeline.start) < 4*time.Second {
					time.Sleep(time.Until(s.timeline.start.Add(4 * time.Second)))
				}
				if req.URL.Path == "/files/"+f.name || req.URL.Path == "/ids/1" {
					return serving(f.last().content(), strong(f.last()))(req)
				}
				return problem(http.StatusNotFound, "not-found")(req)
			})
		}
		l := newLoad(s, loadConfig{Reads: 50})
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second-time.Millisecond)
		defer cancel()
		if err := l.readAll(ctx, rand.New(rand.NewPCG(1, 1))); err != nil {
			t.Fatal(err)
		}
		if len(l.samples) != 300 {
			t.Fatalf("%d reads were sent in 6 s, want 300", len(l.samples))
		}
		kinds := map[readKind]int{}
		for _, one := range l.samples {
			kinds[one.kind]++
			if want := max(0, 4*time.Second-one.at); one.outcome != goodRead || one.took != want {
				t.Errorf("read at %s: %s after %s, want %s", one.at, one.outcome, one.took, want)
			}
		}
		if len(kinds) != 5 {
			t.Errorf("kinds of reads: %v, want all five", kinds)
		}
		counts(t, s.verdict, nil)
	})
}

func TestLongestGap(t *testing.T) {
	at := func(second int, o outcome) sample { return sample{at: time.Duration(second) * time.Second, outcome: o} }
	for _, tc := range []struct {
		name    string
		samples []sample
		want    time.Duration
	}{
		{"none", nil, 0},
		{"all well", []sample{at(0, goodRead), at(1, savedRead)}, 0},
		{"from the first that failed to the next that did not", []sample{at(0, goodRead), at(1, failedRead), at(2, failedRead), at(5, goodRead)}, 4 * time.Second},
		{"what was excused ends nothing", []sample{at(0, failedRead), at(1, stormStore), at(3, savedRead)}, 3 * time.Second},
		{"until the end", []sample{at(0, goodRead), at(8, failedRead)}, 2 * time.Second},
		{"the longest of two", []sample{at(0, failedRead), at(3, goodRead), at(4, failedRead), at(5, goodRead)}, 3 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := longestGap(tc.samples, 10*time.Second, func(o outcome) bool { return o == failedRead }); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

func TestArchiveRunIsFollowedToItsEnd(t *testing.T) {
	for _, tc := range []struct {
		name, answer string
		ok           bool
	}{
		{"done", `{"packed":1}` + "\n" + `{"packed":2,"done":true}` + "\n", true},
		{"ended by an error", `{"done":true,"error":{"code":"unavailable"}}` + "\n", false},
		{"cut", `{"packed":1}` + "\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, doors := newScene(t, 1)
			doors[0].set(handled(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, tc.answer) })) // into memory
			if err := archive(t.Context(), doors[0]); (err == nil) != tc.ok {
				t.Errorf("%v, ended well: %t", err, tc.ok)
			}
		})
	}
}

// TestWhatWasCommittedIsWrittenOnce lets a node, played by the test, go on with
// rows whose commit the customer has not heard of, and has the customer try
// again.
func TestWhatWasCommittedIsWrittenOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs a Postgres")
	}
	s, _ := newScene(t, 0)
	dir, err := os.MkdirTemp("", "storm-postgres-*") // its user must get there
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}()
	db, err := dev.StartPostgres(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Stop(); err != nil {
			t.Error(err)
		}
	}()
	s.database, s.table = db.URL, "files"
	run := func(sql string, args ...any) {
		t.Helper()
		conn, err := s.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Error(err)
		}
		if err := closeConn(conn); err != nil {
			t.Error(err)
		}
	}
	run(`CREATE TABLE files (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, path text, size bigint, modified_at timestamptz,
		status text DEFAULT 'ACTIVE', archive_version bigint DEFAULT 0, des_name text, des_pack bytea, des_sha256 bytea,
		archive_attempts int DEFAULT 0, archive_error text, packed_at timestamptz)`)
	l, c := newLoad(s, loadConfig{}), newChecker(s, false)
	files, err := s.ledger.add(3)
	if err != nil {
		t.Fatal(err)
	}
	for version := range 2 {
		if version == 1 {
			if files, err = s.ledger.change(files); err != nil {
				t.Fatal(err)
			}
		}
		commitUnheard(t, l, files)
		for _, f := range files {
			v := s.ledger.current(f)
			run(`UPDATE files SET status = 'PACKED', archive_version = archive_version + 1, des_name = name, des_pack = $2, des_sha256 = $3 WHERE name = $1`, f.name, []byte{byte(version)}, v.sum[:])
		}
		if err := l.deliver(t.Context(), files, 0); err != nil || len(s.ledger.unlisted(files)) != 0 {
			t.Fatalf("not delivered: %v", err)
		}
		if err := c.lookAtRows(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range c.rows.last {
			if r.state != statePacked {
				t.Errorf("%s is %s: it was written again", r.name, r.state)
			}
		}
	}
	if len(c.rows.last) != 3 || l.wrote.files != 3 || l.wrote.changes != 3 {
		t.Errorf("%d rows, %+v", len(c.rows.last), l.wrote)
	}
	counts(t, s.verdict, nil)
}

// commitUnheard places files and commits their rows, and forgets that it did.
func commitUnheard(t *testing.T, l *load, files []*file) {
	t.Helper()
	for _, f := range files {
		if err := l.ledger.place(f, l.src, l.incoming); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := pgx.Connect(t.Context(), l.database)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.write(t.Context(), conn, files); err != nil {
		t.Error(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
