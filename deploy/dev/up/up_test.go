package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/deploy/dev/devtest"
	"github.com/datavision/desnode/node/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTheEnvironmentIsUsedAgain starts the servers twice on one folder: the
// second start keeps rows, ports and what was added to the table meanwhile.
func TestTheEnvironmentIsUsedAgain(t *testing.T) {
	if testing.Short() {
		t.Log("left out by -short: Postgres and S3")
		return
	}
	dir := devtest.Folder(t)
	var urls []string
	for round := range 2 {
		e, err := start(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, e.adminURL(), e.s3.Endpoint)
		if err := e.prepare(t.Context(), "true", os.Stderr); err != nil {
			t.Fatal(err)
		}
		sql := "SELECT count(*) FROM public.documents"
		if round == 0 {
			sql = "DELETE FROM public.documents WHERE author = 'all NULL'; " + sql
		}
		if n, err := e.postgres.PSQL(t.Context(), database, sql); err != nil || n != strconv.Itoa(documents+11) {
			t.Errorf("round %d: %s rows, %v", round, n, err)
		}
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if urls[0] != urls[2] || urls[1] != urls[3] {
		t.Errorf("the servers moved: %v", urls)
	}
}

// TestTheConfigurationIsRead reads what up writes as desnode and a shell do,
// from a folder whose name needs care.
func TestTheConfigurationIsRead(t *testing.T) {
	if testing.Short() {
		t.Log("left out by -short: Postgres and S3")
		return
	}
	dir := filepath.Join(devtest.Folder(t), "it's here: #1, \"quoted\"")
	e, err := start(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := e.writeConfiguration(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$1/env"; printf '%s\n' "$DESNODE_CONFIG" "$DESNODE_DEV_S3"`, "sh", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	file, store, _ := strings.Cut(strings.TrimSuffix(string(out), "\n"), "\n")
	cfg, err := config.Load(config.Input{File: file})
	if err != nil {
		t.Fatal(err)
	}
	src := cfg.Sources["documents"]
	if cfg.Store.URL != store || cfg.DataDir != filepath.Join(dir, "node") || len(src.Roots) != 1 || src.Roots[0] != e.files || src.Table != "public.documents" {
		t.Errorf("read as %+v", cfg)
	}
}
