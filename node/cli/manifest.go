package cli

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/node/api"
)

// The forms of a manifest.
const (
	manifestPlain = "plain"
	manifestCSV   = "csv"
	manifestJSONL = "jsonl"
)

// manifestFields are the columns of a CSV manifest, and the fields of a JSON
// one.
var manifestFields = []string{"path", "name", "size", "modified", "sha256", "content_type"}

// maxManifestErrors is how many wrong lines are told of one manifest.
const maxManifestErrors = 20

// manifestForm returns the form that the operator asked for, else the one that
// the file's name tells.
func manifestForm(asked, path string) (string, error) {
	switch ext := strings.ToLower(filepath.Ext(path)); {
	case asked == manifestPlain || asked == manifestCSV || asked == manifestJSONL:
		return asked, nil
	case asked != "":
		return "", usage(fmt.Sprintf("--manifest-format %s is none of %s, %s, %s", printable(asked), manifestPlain, manifestCSV, manifestJSONL))
	case ext == ".csv":
		return manifestCSV, nil
	case ext == ".jsonl" || ext == ".ndjson":
		return manifestJSONL, nil
	}
	return manifestPlain, nil
}

// readManifest reads a whole list of files and checks every line of it, so that
// nothing is registered when one makes no sense.
func (a *app) readManifest(path, form string) ([]api.ImportFile, error) {
	form, err := manifestForm(form, path)
	if err != nil {
		return nil, err
	}
	r := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		defer f.Close()
		r = f
	}
	m := manifest{seen: map[string]int{}}
	switch form {
	case manifestCSV:
		err = m.readCSV(r)
	case manifestJSONL:
		err = m.readLines(r, m.addJSON)
	default:
		err = m.readLines(r, func(line int, text []byte) { m.add(api.ImportFile{Line: line, Path: string(text)}) })
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if err := m.err(); err != nil {
		return nil, &usageError{err}
	}
	if len(m.files) == 0 {
		return nil, usage("the manifest lists no file")
	}
	return m.files, nil
}

// manifest is a list of files as it is read.
type manifest struct {
	files []api.ImportFile
	seen  map[string]int // path → line
	wrong []error
	more  int // wrong lines beyond those in wrong
}

func (m *manifest) wrongLine(line int, format string, args ...any) {
	if len(m.wrong) == maxManifestErrors {
		m.more++
		return
	}
	m.wrong = append(m.wrong, fmt.Errorf("line %d: %w", line, fmt.Errorf(format, args...)))
}

// err returns all that is wrong with the lines.
func (m *manifest) err() error {
	if len(m.wrong) == 0 {
		return nil
	}
	all := errors.Join(m.wrong...)
	if m.more > 0 {
		all = fmt.Errorf("%w\nand %s more", all, count(int64(m.more), "line"))
	}
	return fmt.Errorf("the manifest makes no sense, nothing was imported:\n%w", all)
}

// add takes one file whose fields have been read.
func (m *manifest) add(f api.ImportFile) {
	switch {
	case f.Path == "":
		m.wrongLine(f.Line, "no path")
		return
	case f.Size != nil && *f.Size < 0:
		m.wrongLine(f.Line, "the size %d is negative", *f.Size)
		return
	case f.SHA256 != "":
		if b, err := hex.DecodeString(f.SHA256); err != nil || len(b) != 32 {
			m.wrongLine(f.Line, "%s is no SHA-256 in hex", printable(f.SHA256))
			return
		}
		f.SHA256 = strings.ToLower(f.SHA256)
	}
	path := filepath.Clean(f.Path)
	if before, listed := m.seen[path]; listed {
		m.wrongLine(f.Line, "%s stands in line %d too", printable(f.Path), before)
		return
	}
	m.seen[path] = f.Line
	m.files = append(m.files, f)
}

// readLines hands over each line that is not empty.
func (m *manifest) readLines(r io.Reader, each func(line int, text []byte)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	number := 0
	for lines.Scan() {
		number++
		text := bytes.TrimSuffix(lines.Bytes(), []byte("\r"))
		if number == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff")) // spreadsheets write one
		}
		if len(text) > 0 {
			each(number, text)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", number+1, err)
	}
	return nil
}

// addJSON reads one object of JSON lines.
func (m *manifest) addJSON(line int, text []byte) {
	var f api.ImportFile
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&f)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else {
			err = errors.New("more than one JSON value")
		}
	}
	switch {
	case err != nil:
		m.wrongLine(line, "%w", err)
	case f.Line != 0:
		m.wrongLine(line, `unknown field "line"; the fields are %s`, strings.Join(manifestFields, ", "))
	default:
		f.Line = line
		m.add(f)
	}
}

// readCSV reads a table whose first line names the columns.
func (m *manifest) readCSV(r io.Reader) error {
	buffered := bufio.NewReader(r)
	if mark, err := buffered.Peek(3); err == nil && string(mark) == "\ufeff" {
		_, _ = buffered.Discard(3) // it was peeked at
	}
	table := csv.NewReader(buffered)
	columns, err := table.Read()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	for i, c := range columns {
		if !slices.Contains(manifestFields, c) || slices.Contains(columns[:i], c) {
			return &usageError{fmt.Errorf("line 1: it names the columns, each once, of %s; %s is none", strings.Join(manifestFields, ", "), printable(c))}
		}
	}
	if !slices.Contains(columns, "path") {
		return &usageError{errors.New("line 1: there is no column path")}
	}
	for {
		cells, err := table.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var bad *csv.ParseError
		switch {
		case errors.As(err, &bad):
			m.wrongLine(bad.Line, "%w", bad.Err)
			if !errors.Is(err, csv.ErrFieldCount) {
				return nil // where the next line begins is not known
			}
		case err != nil:
			return err
		default:
			line, _ := table.FieldPos(0)
			m.addCells(line, columns, cells)
		}
	}
}

// addCells reads one line of a CSV table; an empty cell says nothing.
func (m *manifest) addCells(line int, columns, cells []string) {
	f := api.ImportFile{Line: line}
	for i, cell := range cells {
		if cell == "" {
			continue
		}
		switch columns[i] {
		case "path":
			f.Path = cell
		case "name":
			f.Name = cell
		case "sha256":
			f.SHA256 = cell
		case "content_type":
			f.ContentType = cell
		case "size":
			n, err := strconv.ParseInt(cell, 10, 64)
			if err != nil {
				m.wrongLine(line, "size %s is no whole number of bytes", printable(cell))
				return
			}
			f.Size = &n
		case "modified":
			at, err := time.Parse(time.RFC3339Nano, cell)
			if err != nil {
				m.wrongLine(line, "modified %s is no time such as 2026-01-31T12:00:00Z", printable(cell))
				return
			}
			f.Modified = &at
		}
	}
	m.add(f)
}

// Bounds of what one request lists: the server takes 8 MiB.
const (
	maxListedFiles = 10_000
	maxListedBytes = 4 << 20
)

// listedChunks cuts a list into what fits one request each.
func listedChunks(files []api.ImportFile) ([][]api.ImportFile, error) {
	var chunks [][]api.ImportFile
	from, size := 0, 0
	for i, f := range files {
		b, err := json.Marshal(f)
		if err != nil {
			return nil, &usageError{fmt.Errorf("line %d: %w", f.Line, err)}
		}
		if i > from && (i-from == maxListedFiles || size+len(b) > maxListedBytes) {
			chunks = append(chunks, files[from:i])
			from, size = i, 0
		}
		size += len(b) + 1
	}
	return append(chunks, files[from:]), nil
}
