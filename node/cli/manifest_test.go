package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/node/api"
)

func manifestOf(form, text string) ([]api.ImportFile, error) {
	a := &app{stdin: strings.NewReader(text), stdout: io.Discard, stderr: io.Discard}
	return a.readManifest("-", form)
}

// TestAManifestReadsWhatWasWritten writes any list in each form and reads it
// back.
func TestAManifestReadsWhatWasWritten(t *testing.T) {
	text := rapid.StringMatching(`[ -~ąé😀",;\t]{1,30}`)
	rapid.Check(t, func(t *rapid.T) {
		var want []api.ImportFile
		seen := map[string]bool{}
		for _, path := range rapid.SliceOfN(text, 1, 20).Draw(t, "paths") {
			if seen[filepath.Clean(path)] {
				continue
			}
			seen[filepath.Clean(path)] = true
			f := api.ImportFile{Path: path}
			if rapid.Bool().Draw(t, "more") {
				f.Name, f.ContentType = text.Draw(t, "name"), "text/plain"
				f.Size = new(rapid.Int64Min(0).Draw(t, "size"))
				f.Modified = new(time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "nanos")).UTC())
				f.SHA256 = strings.Repeat("0a", 32)
			}
			want = append(want, f)
		}
		for _, form := range []string{manifestCSV, manifestJSONL} {
			got, err := manifestOf(form, written(t, form, want))
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			for i := range got {
				if got[i].Line != i+1 && form == manifestJSONL || got[i].Line != i+2 && form == manifestCSV {
					t.Fatalf("%s: file %d is said to stand in line %d", form, i, got[i].Line)
				}
				got[i].Line = 0
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: got %+v, want %+v", form, got, want)
			}
		}
	})
}

func written(t *rapid.T, form string, files []api.ImportFile) string {
	var b bytes.Buffer
	if form == manifestJSONL {
		for _, f := range files {
			if err := json.NewEncoder(&b).Encode(f); err != nil {
				t.Fatal(err)
			}
		}
		return b.String()
	}
	w := csv.NewWriter(&b)
	lines := [][]string{manifestFields}
	for _, f := range files {
		line := []string{f.Path, f.Name, "", "", f.SHA256, f.ContentType}
		if f.Size != nil {
			line[2], line[3] = strconv.FormatInt(*f.Size, 10), f.Modified.Format(time.RFC3339Nano)
		}
		lines = append(lines, line)
	}
	if err := w.WriteAll(lines); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestManifestsThatMakeNoSense(t *testing.T) {
	cases := []struct{ name, form, text, want string }{
		{"nothing", manifestPlain, "\n\n", "lists no file"},
		{"a path twice", manifestPlain, "a\n\nb\n./a\n", "line 4: ./a stands in line 1 too"},
		{"CSV without a path", manifestCSV, "name\nx\n", "line 1: there is no column path"},
		{"CSV with a column twice", manifestCSV, "path,path\nx,x\n", "line 1: it names the columns, each once"},
		{"CSV with an open quote", manifestCSV, "path\na\n\"b\n", "line 3: extraneous or missing"},
		{"CSV with a stray quote", manifestCSV, "path\na\nb\"c\nd\n", `line 3: bare "`},
		{"CSV with a short line", manifestCSV, "path,size\na\nb,x\n", "line 2: wrong number of fields\nline 3: size x is no whole number"},
		{"negative size", manifestCSV, "path,size\na,-1\n", "line 2: the size -1 is negative"},
		{"JSON that is none", manifestJSONL, "{\"path\":\"a\"}\nb\n", "line 2: invalid character"},
		{"JSON of another kind", manifestJSONL, "[]\n", "line 1: json: cannot unmarshal"},
		{"JSON with a bad time", manifestJSONL, `{"path":"a","modified":"today"}`, "line 1: "},
		{"JSON without a path", manifestJSONL, `{"size":1}`, "line 1: no path"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			files, err := manifestOf(tc.form, tc.text)
			var wrong *usageError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tc.want) || files != nil {
				t.Errorf("got %v, %v; want %q", files, err, tc.want)
			}
		})
	}
}

func TestManifestsAsSpreadsheetsWriteThem(t *testing.T) {
	for form, text := range map[string]string{
		manifestCSV: "\ufeffpath,size\r\na b,5\r\n", manifestPlain: "\ufeffa b\r\n", manifestJSONL: "\ufeff{\"path\":\"a b\"}\r\n",
	} {
		if files, err := manifestOf(form, text); err != nil || len(files) != 1 || files[0].Path != "a b" {
			t.Errorf("%s: got %+v, %v", form, files, err)
		}
	}
}

func TestManyWrongLinesAreCounted(t *testing.T) {
	_, err := manifestOf(manifestCSV, "path,size\n"+strings.Repeat("a,x\n", 100))
	if err == nil || strings.Count(err.Error(), "no whole number") != maxManifestErrors || !strings.HasSuffix(err.Error(), "and 80 lines more") {
		t.Errorf("got %v", err)
	}
}

func TestLongListsTakeSeveralRequests(t *testing.T) {
	long := strings.Repeat("x", 3000)
	var files []api.ImportFile
	for i := range 25_000 {
		f := api.ImportFile{Line: i + 1, Path: fmt.Sprint(i)}
		if i < 4000 {
			f.Name = long
		}
		files = append(files, f)
	}
	chunks, err := listedChunks(files)
	if err != nil {
		t.Fatal(err)
	}
	var all []api.ImportFile
	for _, c := range chunks {
		b, err := json.Marshal(api.ImportRequest{Dir: "/srv", Files: c})
		if err != nil || len(b) > maxListedBytes+1<<16 || len(c) > maxListedFiles || len(c) == 0 {
			t.Errorf("a request of %d files and %d bytes, %v", len(c), len(b), err)
		}
		all = append(all, c...)
	}
	if !reflect.DeepEqual(all, files) || len(chunks) != 5 {
		t.Errorf("%d files in %d requests, want %d in 5", len(all), len(chunks), len(files))
	}
}
