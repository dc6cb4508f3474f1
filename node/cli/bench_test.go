package cli

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
	"github.com/datavision/desnode/node/store"
)

// TestBenchAgainstPostgresAndS3 runs both loads against real servers, by the
// words for those of deploy/dev, and finds nothing of them left behind.
func TestBenchAgainstPostgresAndS3(t *testing.T) {
	if testing.Short() {
		t.Log("left out by -short: Postgres and S3")
		return
	}
	pg, err := dev.StartPostgres(t.Context(), devtest.Folder(t))
	if err != nil {
		t.Fatal(err)
	}
	s3Dir := devtest.Folder(t)
	s3, err := dev.StartS3(t.Context(), s3Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s3.Stop(); err != nil {
			t.Error(err)
		}
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := s3.MakeBucket("bench"); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	for name, value := range map[string]string{
		envDevPostgres: pg.URL, envDevS3: s3.BucketURL("bench"), "TMPDIR": tmp,
		"AWS_ACCESS_KEY_ID": dev.S3AccessKey, "AWS_SECRET_ACCESS_KEY": dev.S3SecretKey,
	} {
		t.Setenv(name, value)
	}

	var archived benchReport
	runBench(t, &archived, "archive", "--files", "3000", "--size", "lognormal:2KiB", "--pack-size", "1MiB", "--check-every", "10",
		"--source", "postgres", "--store", "s3", "-o", "json")
	if !archived.OK || archived.Packed != 3000 || archived.ReadBack.Identical != 300 || archived.Packs.Count < 2 {
		t.Errorf("archived %+v", archived)
	}
	if archived.Requests["list"] != 0 || archived.Requests["put"] < archived.Packs.Count {
		t.Errorf("requests %v for %d packs", archived.Requests, archived.Packs.Count)
	}
	if archived.PeakMemory <= 0 || archived.PeakGo <= 0 || archived.PeakHeap <= 0 || archived.PeakHeap > archived.PeakGo {
		t.Errorf("memory %d, of Go %d, on its heap %d", archived.PeakMemory, archived.PeakGo, archived.PeakHeap)
	}
	if archived.Restart.Ready <= 0 || archived.Restart.FirstAnswer <= 0 {
		t.Errorf("restart %+v", archived.Restart)
	}

	var read readReport
	runBench(t, &read, "read", "--files", "500", "--size", "1KiB", "--clients", "2", "--duration", "300ms",
		"--source", "postgres", "--store", "s3", "-o", "json")
	if read.Requests == 0 || read.Errors != 0 || read.P50 <= 0 || read.P999 < read.P50 || read.Max < read.P999 {
		t.Errorf("read %+v", read)
	}

	if left, err := pg.PSQL(t.Context(), "postgres", "SELECT count(*) FROM pg_namespace WHERE nspname = 'desnode_bench'"); left != "0" || err != nil {
		t.Errorf("%s schemas are left, %v", left, err)
	}
	err = filepath.WalkDir(filepath.Join(s3Dir, "buckets", "bench"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != store.ProbeKey {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(tmp); len(left) != 0 || err != nil {
		t.Errorf("%v are left, %v", left, err)
	}
}

// runBench runs a load and decodes its report, every field of which is known.
func runBench(t *testing.T, report any, args ...string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := Main(append([]string{"bench"}, args...), strings.NewReader(""), &stdout, &stderr); code != exitOK {
		t.Fatalf("bench %v: exit code %d: %s", args, code, stderr.String())
	}
	dec := json.NewDecoder(&stdout)
	dec.DisallowUnknownFields()
	if err := dec.Decode(report); err != nil {
		t.Fatal(err)
	}
}
