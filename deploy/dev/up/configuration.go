package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"github.com/datavision/desnode/deploy/dev"
)

const (
	database = "desnode"
	bucket   = "desnode"
)

func (e *environment) adminURL() string { return e.postgres.DatabaseURL("postgres", database) }

// configuration is desnode.yaml. Each role has a connection of its own, with
// that role's rights alone.
const configuration = `# Written by 'make dev-up', anew each time.
data_dir: {{yaml (print .Dir "/node")}}
store:
  url: {{yaml .Store}}
sources:
  documents:                  # a customer's own table, in its own words
    url: {{call .URL "desnode_reader"}}
    urls:
      marker: {{call .URL "desnode_marker"}}
      packer: {{call .URL "desnode_packer"}}
      deleter: {{call .URL "desnode_deleter"}}
    roots: [{{yaml .Documents}}]
    table: public.documents
    columns: {id: doc_id, name: file_name, path: storage_path, size: bytes, modified_at: changed, status: state}
    states: {ACTIVE: A, MARKED: M, PACKED: P, DELETED_SOURCE: D, FAILED: F}
    metadata: {author: author}
  files:                      # the reference table desnode.files, for those who have none
    url: {{call .URL "desnode_reader"}}
    urls:
      marker: {{call .URL "desnode_marker"}}
      packer: {{call .URL "desnode_packer"}}
      deleter: {{call .URL "desnode_deleter"}}
    roots: [{{yaml .Documents}}]
archive:
  min_age: 1h
  max_wait: 1m
`

// environ is the file env, for shells.
const environ = `# Written by 'make dev-up', anew each time: . dev-data/env
export DESNODE_CONFIG={{quote .Dir}}/desnode.yaml
export DESNODE_DEV_POSTGRES={{quote .Admin}}
export DESNODE_DEV_S3={{quote .Store}}
export AWS_ACCESS_KEY_ID={{quote .AccessKey}}
export AWS_SECRET_ACCESS_KEY={{quote .SecretKey}}
export AWS_REGION={{quote .Region}}
`

// writeConfiguration writes desnode.yaml and env.
func (e *environment) writeConfiguration() error {
	values := map[string]any{
		"Dir": e.dir, "Documents": e.files,
		"Store": e.s3.BucketURL(bucket), "Admin": e.adminURL(),
		"URL":       func(role string) string { return e.postgres.DatabaseURL(role, database) },
		"AccessKey": dev.S3AccessKey, "SecretKey": dev.S3SecretKey, "Region": dev.S3Region,
	}
	for name, text := range map[string]string{"desnode.yaml": configuration, "env": environ} {
		t, err := template.New(name).Funcs(template.FuncMap{"quote": quoteShell, "yaml": strconv.Quote}).Parse(text)
		if err != nil {
			return err
		}
		var b strings.Builder
		if err := t.Execute(&b, values); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(e.dir, name), []byte(b.String()), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// quoteShell writes s as one word for a POSIX shell.
func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
