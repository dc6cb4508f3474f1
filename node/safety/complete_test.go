package safety

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/marker"
	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/rebuild"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// What the three tests here prove together: the write path (marker, packer,
// keeper, backup, rebuild) reaches the world outside its node only through the
// interfaces listed here, and each of their methods passes the gate under a
// name that effects lists. So a schedule of every effect is a schedule of all
// that the write path does outside.
//
// What they do not prove: that the drivers behind the interfaces (Postgres, S3,
// folders) do one thing a call. Each has its own suite.

func iface[T any]() reflect.Type { return reflect.TypeFor[T]() }

// way is an interface that leads out, and what the harness puts in its place.
type way struct {
	prefix string
	out    reflect.Type
	gated  func(l *life) any
	inside map[string]string // methods without an effect, and why
}

func ways(t *testing.T) []way {
	local := func(l *life) any {
		m, err := raftmeta.OpenLocal(raftmeta.LocalConfig{
			Node: theNode, Cluster: theCluster, Journal: &raftmeta.Journal{},
			Through: func(_ context.Context, what string, do func() error) error { return l.do("meta."+what, do) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	view := map[string]string{
		"View": "the node's own memory", "Changed": "the node's own memory", "AppliedEverywhere": "the node's own memory",
		"Setting": "the node's own memory",
	}
	operator := map[string]string{
		"Close": "ends what was opened", "TimePrecision": "a constant",
		"Counts": "the operator's", "Pending": "the operator's", "EligibleTally": "the operator's", "FailureTally": "the operator's",
		"Failures": "the operator's", "Retry": "the operator's", "Register": "the operator's",
		"ClaimCluster": "once, at the node's start", "CheckCluster": "once, at the node's start",
	}
	closing := map[string]string{"Close": "nothing is promised by it", "Info": "in memory", "Seek": "in memory"}
	rows := func(l *life) any { return gatedRows{newRows(theSource), l} }
	return []way{
		{"source.", iface[source.Table](), rows, operator},
		{"source.", iface[source.ListRows](), rows, nil},
		{"source.", iface[source.RestorerRows](), rows, nil},
		{"files.", iface[source.Originals](), func(l *life) any { return gatedFiles{&originals{}, l} }, nil},
		{"files.", iface[source.Original](), func(l *life) any { return &gatedOriginal{life: l} }, closing},
		{"store.", iface[store.Store](), func(l *life) any { return gatedStore{nil, l} }, nil},
		{"store.", iface[store.Uploader](), func(l *life) any { return gatedUploads{nil, l} }, nil},
		{"audit.", iface[keeper.Disk](), func(l *life) any { return gatedDisk{newDisk(), l} }, nil},
		{"audit.", iface[keeper.DiskFile](), func(l *life) any { return gatedLog{newDisk().open("x", false), l} }, closing},
		{"spool.", iface[packer.Spool](), func(l *life) any { return gatedSpool{newSpool(), l} }, nil},
		{"spool.", iface[packer.SpoolFile](), func(l *life) any { return gatedSpooled{&spooled{}, l} }, closing},
		{"meta.", iface[keeper.Manifest](), local, view},
		{"meta.", iface[keeper.Commands](), local, nil},
		{"meta.", iface[packer.Manifest](), local, nil},
		{"meta.", iface[marker.Leaser](), local, nil},
		{"meta.", iface[backup.Manifest](), local, view},
		{"meta.", iface[rebuild.Manifest](), local, view},
		{"meta.", iface[rebuild.Commands](), local, nil},
	}
}

// Each method that leads out passes the gate exactly once, under a listed name.
func TestEveryWayOutPassesTheGate(t *testing.T) {
	known := effects()
	met := map[string]bool{}
	for _, w := range ways(t) {
		for i := range w.out.NumMethod() {
			name := w.out.Method(i).Name
			if w.inside[name] != "" {
				continue
			}
			g := newGate(known, nil)
			g.refuse = true
			g.strange = func(effect string) { t.Errorf("%s.%s: effect %s is not listed", w.out, name, effect) }
			l := &life{gate: g, cancel: func() {}, died: func() {}}
			gated := reflect.ValueOf(w.gated(l)).MethodByName(name)
			if !gated.IsValid() {
				t.Errorf("%s.%s: what the harness puts in its place has no such method", w.out, name)
				continue
			}
			if err := callWithNothing(gated); err == nil {
				t.Errorf("%s.%s: a call that the gate refuses ends well", w.out, name)
			}
			if len(g.trace) != 1 || !strings.HasPrefix(g.trace[0].name, w.prefix) {
				t.Errorf("%s.%s passes the gate as %v, want once", w.out, name, g.trace)
				continue
			}
			met[g.trace[0].name] = true
		}
	}
	for name := range known {
		if !met[name] && name != "meta.release" { // by which WithLease ends
			t.Errorf("effect %s is listed, and no way out leads to it", name)
		}
	}
}

// callWithNothing calls a method with zero values, and a context where one is
// wanted, and returns its error.
func callWithNothing(method reflect.Value) (err error) {
	var in []reflect.Value
	for i := range method.Type().NumIn() {
		arg := reflect.New(method.Type().In(i)).Elem()
		switch method.Type().In(i) {
		case iface[context.Context]():
			arg.Set(reflect.ValueOf(context.Background()))
		case iface[raftmeta.Adoption](): // an empty one is done before it begins
			arg.Set(reflect.ValueOf(raftmeta.Adoption{Uploads: make([]raftmeta.Upload, 1)}))
		}
		in = append(in, arg)
	}
	call := method.Call
	if method.Type().IsVariadic() {
		call = method.CallSlice
	}
	for _, out := range call(in) {
		if e, ok := out.Interface().(error); ok {
			err = e
		}
	}
	return err
}

// Each field of a part's configuration that can lead out is one that the
// harness puts a gate into, or is known to lead nowhere.
func TestEveryPartIsWiredThroughTheGate(t *testing.T) {
	const (
		gate    = "gated"
		nowhere = "leads nowhere"
		read    = "reads the node's own memory"
		gone    = "the harness leaves it out: what it does is another part's"
	)
	common := map[string]string{
		"Logger": nowhere, "Registerer": nowhere, "Metrics": nowhere, "Now": nowhere, "NewID": nowhere, "NewName": nowhere,
		"Pace": "settings and clocks; it has its own crash tests (package pace)",
	}
	for _, c := range []struct {
		config reflect.Type
		fields map[string]string
	}{
		{iface[marker.Config](), map[string]string{
			"Sources": gate, "Leases": gate, "Live": read, "Shared": "one Set, when a backlog is full", "Stuck": read,
		}},
		{iface[packer.Config](), map[string]string{
			"Sources": gate, "View": read, "Manifest": gate, "Store": gate, "Finder": gate, "Acks": gate, "Spool": gate,
			"Emptied": read, "OthersPack": read, "Marking": read,
		}},
		{iface[keeper.Config](), map[string]string{
			"Manifest": gate, "Commands": gate, "Store": gate, "Sources": gate, "Disk": gate, "Uploads": gate,
			"OthersKeep": read, "AllSources": read, "Current": gate, "Newer": gate, "Suspects": read,
		}},
		{iface[backup.Config](), map[string]string{"Manifest": gate, "Store": gate, "Current": gate}},
		{iface[rebuild.Config](), map[string]string{
			"Manifest": gate, "Commands": gate, "Store": gate, "Uploads": gate, "Sources": gate, "OpenBase": gate,
			"RestoreSetting": nowhere, "Fence": gone, "Acknowledge": gate, "Quarantined": gate,
		}},
	} {
		for i := range c.config.NumField() {
			f := c.config.Field(i)
			if leadsOut(f.Type) && c.fields[f.Name] == "" && common[f.Name] == "" {
				t.Errorf("%s.%s may lead out, and passes no gate", c.config, f.Name)
			}
			delete(c.fields, f.Name)
		}
		for name := range c.fields {
			t.Errorf("%s has no field %s", c.config, name)
		}
	}
}

// leadsOut reports whether code of somebody else's hangs on a value of that type.
func leadsOut(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Interface, reflect.Func, reflect.Chan:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Array:
		return leadsOut(t.Elem())
	case reflect.Struct:
		return t.PkgPath() != "time" && slices.ContainsFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool {
			return len(f.Index) == 1 && leadsOut(f.Type)
		})
	}
	return false
}

// The write path's own code calls nothing of the operating system, no network
// and no database, but in the files that are the seams' default, which name
// what they call.
func TestWritePathCallsTheSystemNowhereElse(t *testing.T) {
	seams := map[string][]string{
		"packer/spool.go": {
			"os.MkdirAll", "os.ReadDir", "os.OpenFile", "os.Remove", "os.O_RDWR", "os.O_CREATE", "os.O_EXCL",
			"syscall.ENOSPC", "syscall.EDQUOT", "filepath.Join",
		},
		"keeper/disk.go": {
			"os.OpenFile", "os.Link", "os.Rename", "os.Open", "os.O_TRUNC", "os.O_CREATE", "os.O_RDWR", "os.O_APPEND",
			"filepath.Join",
		},
		// Which machine this is, looked up once.
		"keeper/host.go": {"os.ReadFile", "os.Hostname"},
		// Spelling of paths.
		"keeper/original_shared.go": {"filepath.IsAbs"},
	}
	fset := token.NewFileSet()
	for _, part := range []string{"marker", "packer", "keeper", "backup", "rebuild", "pace"} {
		paths, err := filepath.Glob("../" + part + "/*.go")
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v", part, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(fset, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			name := part + "/" + filepath.Base(path)
			checkImports(t, name, file)
			for _, call := range systemCalls(file) {
				if !slices.Contains(seams[name], call) {
					t.Errorf("%s calls %s past every gate", name, call)
				}
			}
		}
	}
}

// harmless are the packages that the write path may use as it likes: none of
// them reaches anything outside the process. The others of ours hand out what
// the interfaces above describe.
func harmless() []string {
	return []string{
		"bufio", "bytes", "cmp", "context", "crypto/rand", "crypto/sha256", "encoding/hex", "encoding/json", "errors", "fmt",
		"hash/fnv", "io", "io/fs", "log/slog", "maps", "math", "path", "slices", "sort", "strconv", "strings", "sync", "sync/atomic",
		"time", "unicode", "unicode/utf8",
		"github.com/google/uuid", "github.com/klauspost/compress/zstd", "github.com/prometheus/client_golang/prometheus",
		"golang.org/x/sync/errgroup", "golang.org/x/sync/semaphore",
		"github.com/datavision/desnode/desformat", "github.com/datavision/desnode/raftmeta", "github.com/datavision/desnode/node/pace",
		"github.com/datavision/desnode/node/source", "github.com/datavision/desnode/node/store",
	}
}

// system are the packages whose every use is looked at.
func system() []string { return []string{"os", "syscall", "path/filepath"} }

func checkImports(t *testing.T, name string, file *ast.File) {
	t.Helper()
	for _, imported := range file.Imports {
		path, err := strconv.Unquote(imported.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(harmless(), path) && !slices.Contains(system(), path) {
			t.Errorf("%s imports %s: does it lead out?", name, path)
		}
		if imported.Name != nil && slices.Contains(system(), path) {
			t.Errorf("%s imports %s under another name", name, path)
		}
	}
}

// systemCalls returns what a file uses of the packages of the system, and what
// of ours makes a driver.
func systemCalls(file *ast.File) []string {
	drivers := []string{
		"source.NewFolders", "source.OpenSQLite", "source.OpenPostgres", "source.NewOriginals", "source.Walk", "source.Listed",
		"store.OpenFolder", "store.Open", "store.OpenS3", "raftmeta.Open",
	}
	found := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok || pkg.Obj != nil { // a variable of that name
			return true
		}
		call := pkg.Name + "." + sel.Sel.Name
		isSystem := slices.ContainsFunc(system(), func(path string) bool { return filepath.Base(path) == pkg.Name })
		if isSystem || slices.Contains(drivers, call) {
			found[call] = true
		}
		return true
	})
	return slices.Sorted(maps.Keys(found))
}

// The default seams are what they are taken for: files of the operating system.
var (
	_ keeper.DiskFile  = (*os.File)(nil)
	_ packer.SpoolFile = (*os.File)(nil)
	_ io.ReaderAt      = packer.SpoolFile(nil)
)
