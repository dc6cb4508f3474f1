package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// documents is the number of well-behaved documents.
const documents = 200

// document returns the name below the folder and the content of one document.
func document(i int) (name, content string) {
	name = fmt.Sprintf("reports/%d/%03d.txt", 2020+i%3, i)
	return name, strings.Repeat(fmt.Sprintf("Report %d. All is well.\n", i), 1+i*7%400)
}

// written is when every document was changed last.
func written() time.Time { return time.Date(2021, 6, 1, 12, 0, 0, 0, time.UTC) }

// writeDocuments writes the documents, those that are there already too, and
// the traps that hostile rows lead to.
func (e *environment) writeDocuments() error {
	for i := range documents {
		name, content := document(i)
		if err := e.write(name, content); err != nil {
			return err
		}
	}
	for _, name := range []string{"odd/grown.txt", "odd/bad-name.txt", "odd/long-name.txt", "odd/żółw.txt"} {
		if err := e.write(name, "hostile, or only odd\n"); err != nil {
			return err
		}
	}
	odd := filepath.Join(e.files, "odd")
	for _, err := range []error{
		os.Symlink("/etc/hostname", filepath.Join(odd, "link-out")),
		syscall.Mkfifo(filepath.Join(odd, "pipe"), 0o600),
		os.Mkdir(filepath.Join(odd, "folder"), 0o755),
	} {
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func (e *environment) write(name, content string) error {
	path := filepath.Join(e.files, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chtimes(path, written(), written()))
}

// makeTable makes the database and the customer's table, unless they are there.
func (e *environment) makeTable(ctx context.Context) error {
	there, err := e.postgres.PSQL(ctx, "postgres", "SELECT count(*) FROM pg_database WHERE datname = '"+database+"'")
	if err != nil {
		return err
	}
	if there == "0" {
		if _, err := e.postgres.PSQL(ctx, "postgres", "CREATE DATABASE "+database); err != nil {
			return err
		}
	}
	there, err = e.postgres.PSQL(ctx, database, "SELECT to_regclass('public.documents') IS NOT NULL")
	if err != nil || there == "t" {
		return err
	}
	_, err = e.postgres.PSQL(ctx, database, "BEGIN;\n"+customersTable+e.rows()+"COMMIT;\n")
	return err
}

// customersTable is as a company would have made it long before desnode.
const customersTable = `
CREATE TABLE public.documents (
	doc_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	file_name    text UNIQUE,
	storage_path text UNIQUE,
	bytes        bigint,
	changed      timestamptz,
	state        text NOT NULL DEFAULT 'A',
	author       text,
	salary       numeric           -- nothing that desnode may read
);
`

// rows lists the documents, then the rows that nothing good can come of.
func (e *environment) rows() string {
	var b strings.Builder
	for i := range documents {
		name, content := document(i)
		b.WriteString(e.row(name, name, len(content), "Anna Kowalska"))
	}
	size := len("hostile, or only odd\n")
	b.WriteString(e.row("odd/żółw.txt", "odd/żółw.txt", size, "O'Hara; DROP TABLE documents; --"))
	b.WriteString("\n-- each of these must end as FAILED, and harm nothing\n")
	b.WriteString(e.row("../../etc/passwd", "odd/bad-name.txt", size, "name climbs"))
	b.WriteString(e.row("odd/line\nbreak.txt", "odd/line\nbreak.txt", size, "control character"))
	b.WriteString(e.row(strings.Repeat("x", 5000), "odd/long-name.txt", size, "name too long"))
	b.WriteString(e.row("odd/climbs.txt", "odd/../../../../../../../../etc/hostname", size, "path climbs"))
	b.WriteString(e.row("odd/link-out", "odd/link-out", size, "link leaves the root"))
	b.WriteString(e.row("odd/pipe", "odd/pipe", 0, "a pipe"))
	b.WriteString(e.row("odd/folder", "odd/folder", 0, "a folder"))
	b.WriteString(e.row("odd/missing.txt", "odd/missing.txt", size, "no such file"))
	b.WriteString(e.row("odd/grown.txt", "odd/grown.txt", size-1, "size differs"))
	b.WriteString(e.row("odd/negative.txt", "odd/negative.txt", -1, "negative size"))
	b.WriteString("INSERT INTO public.documents (author) VALUES ('all NULL');\n")
	return b.String()
}

// row is the INSERT of one document, whose path is below the folder.
func (e *environment) row(name, path string, size int, author string) string {
	return fmt.Sprintf("INSERT INTO public.documents (file_name, storage_path, bytes, changed, author) VALUES (%s, %s, %d, %s, %s);\n",
		quoteSQL(name), quoteSQL(e.files+"/"+path), size, quoteSQL(written().Format(time.RFC3339)), quoteSQL(author))
}

// quoteSQL writes s as a literal. Postgres' standard_conforming_strings is on.
func quoteSQL(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
