// Package compose holds no code: its test reads the compose file and the
// Dockerfile as an engine would, on machines that have none.
package compose

import (
	"bytes"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/datavision/desnode/node/config"
)

// file is as much of the compose format as we use; any other key is refused.
type file struct {
	Node     service           `yaml:"x-node"`
	Cluster  map[string]string `yaml:"x-cluster"`
	Services map[string]service
	Volumes  map[string]*struct{}
}

type service struct {
	Image       string
	Command     []string
	Environment map[string]string
	Volumes     []string
	Ports       []string
	Profiles    []string
	Restart     string
	Tmpfs       []string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	NetworkMode string   `yaml:"network_mode"`
	StopGrace   string   `yaml:"stop_grace_period"`
	DependsOn   map[string]struct {
		Condition string
	} `yaml:"depends_on"`
	Healthcheck *struct {
		Test              []string
		Interval, Timeout string
		Retries           int
		Disable           bool
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var variable = regexp.MustCompile(`\$\{([A-Z0-9_]+)(:[-?][^}]*)?\}`)

// load reads the compose file with the variables of env.example, as
// `docker compose config` does, and returns the variables it asks for.
func load(t *testing.T) (f file, asked []string) {
	t.Helper()
	example := map[string]string{}
	for line := range strings.Lines(read(t, "env.example")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			example[name] = value
		}
	}
	text := variable.ReplaceAllStringFunc(read(t, "compose.yaml"), func(ref string) string {
		m := variable.FindStringSubmatch(ref)
		asked = append(asked, m[1])
		if value, ok := example[m[1]]; ok {
			return value
		}
		if other, ok := strings.CutPrefix(m[2], ":-"); ok {
			return other
		}
		t.Errorf("%s is not in env.example and has no default", m[1])
		return ""
	})
	dec := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		t.Fatal(err)
	}
	for name := range example {
		if !slices.Contains(asked, name) {
			t.Errorf("env.example sets %s, which compose.yaml does not use", name)
		}
	}
	return f, asked
}

func TestTheComposeFileIsWhole(t *testing.T) {
	f, _ := load(t)
	if got, want := slices.Sorted(maps.Keys(f.Services)), []string{"init", "node1", "node2", "node3", "postgres", "s3", "token"}; !slices.Equal(got, want) {
		t.Fatalf("services %v, want %v", got, want)
	}
	used := map[string]bool{}
	for name, s := range f.Services {
		t.Run(name, func(t *testing.T) {
			if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "" || tag == "latest" {
				t.Errorf("the image %q has no fixed version", s.Image)
			}
			for other, on := range s.DependsOn {
				of, ok := f.Services[other]
				if !ok {
					t.Errorf("depends on %s, which is no service", other)
				}
				if healthy := on.Condition == "service_healthy"; healthy != (of.Healthcheck != nil && !of.Healthcheck.Disable) {
					t.Errorf("waits until %s is %q", other, on.Condition)
				}
			}
			for _, v := range s.Volumes {
				from, _, _ := strings.Cut(v, ":")
				if strings.HasPrefix(from, ".") {
					if _, err := os.Stat(from); err != nil && from != "./documents" { // the one that the operator makes
						t.Error(err)
					}
					continue
				}
				if _, ok := f.Volumes[from]; !ok {
					t.Errorf("the volume %s is not declared", from)
				}
				used[from] = true
			}
			for _, p := range s.Ports {
				if !strings.HasPrefix(p, "127.0.0.1:") {
					t.Errorf("the port %s is open to the network", p)
				}
			}
		})
	}
	for v := range f.Volumes {
		if !used[v] {
			t.Errorf("nobody uses the volume %s", v)
		}
	}
	if tools := read(t, "../../.ci/tools/go.mod"); !strings.Contains(tools, "github.com/versity/versitygw "+strings.TrimPrefix(f.Services["s3"].Image, "ghcr.io/versity/versitygw:")) {
		t.Errorf("%s is not the version that the tests run against", f.Services["s3"].Image)
	}
}

// TestNodesAreLockedDownAndConfigured reads each node's configuration as the
// node would.
func TestNodesAreLockedDownAndConfigured(t *testing.T) {
	f, _ := load(t)
	for _, name := range []string{"init", "node1", "node2", "node3"} {
		t.Run(name, func(t *testing.T) {
			s := f.Services[name]
			if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
				t.Errorf("not locked down: %+v", s)
			}
			if cluster := slices.Equal(s.Profiles, []string{"cluster"}); cluster != (name == "node2" || name == "node3") {
				t.Errorf("profiles %v", s.Profiles)
			}
			if s.Environment["DESNODE_CONFIG"] != "/etc/desnode/desnode.yaml" || !slices.Contains(s.Volumes, "./desnode.yaml:/etc/desnode/desnode.yaml:ro") {
				t.Error("its configuration is not mounted where it looks for it")
			}
			if name != "init" && (s.Environment["DESNODE_CLUSTER"] != "0.0.0.0:7947" || s.Environment["DESNODE_ADVERTISE"] != name) {
				t.Errorf("the other nodes can't reach it: %v", s.Environment)
			}
			if d, err := time.ParseDuration(s.StopGrace); err != nil || d != stopWithin {
				t.Errorf("it is given %s to end, the test gives it %s", s.StopGrace, stopWithin)
			}
			environ := []string{"DESNODE_DATA_DIR=/var/lib/desnode", "DESNODE_HTTP=0.0.0.0:8080"} // of the image
			for key, value := range s.Environment {
				environ = append(environ, key+"="+value)
			}
			cfg, err := config.Load(config.Input{File: "desnode.yaml", Environ: environ})
			if err != nil {
				t.Fatal(err)
			}
			src := cfg.Sources["files"]
			if len(cfg.Sources) != 1 || len(src.URLs) != 3 || !strings.HasPrefix(src.URL, "postgres://desnode_reader:") || !strings.HasPrefix(cfg.Store.URL, "s3://desnode?") {
				t.Errorf("read as %+v", cfg)
			}
			for role, url := range src.URLs {
				if !strings.HasPrefix(url, "postgres://desnode_"+role+":") {
					t.Errorf("the %s connects as %s", role, url)
				}
			}
		})
	}
}

// TestTheTokenStaysAmongTheNodes: whoever has it can join. It is asked for where
// the node answers such a request.
func TestTheTokenStaysAmongTheNodes(t *testing.T) {
	f, _ := load(t)
	for name, s := range f.Services {
		mounted := slices.ContainsFunc(s.Volumes, func(v string) bool { return strings.HasPrefix(v, "join:") })
		if joins := name == "node2" || name == "node3"; mounted != (joins || name == "token") || joins != slices.Contains(s.Volumes, "join:/join:ro") {
			t.Errorf("%s mounts %v", name, s.Volumes)
		}
	}
	s := f.Services["token"]
	if s.NetworkMode != "service:node1" || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.Profiles, []string{"cluster"}) {
		t.Errorf("the token's service: %+v", s)
	}
}

// TestTheImagesAgree: the stage from sources and the one from bin/image end in
// the same image, which runs as nobody in particular.
func TestTheImagesAgree(t *testing.T) {
	var stages []string
	for stage := range strings.SplitSeq("\n"+read(t, "../Dockerfile"), "\nFROM ") {
		stages = append(stages, stage)
	}
	if len(stages) != 4 { // comment, offline, build, the image
		t.Fatalf("%d stages", len(stages)-1)
	}
	settings := func(stage string) (lines []string) {
		for line := range strings.Lines(stage) {
			if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); slices.Contains([]string{"ENV", "USER", "WORKDIR", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}, word) {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		return lines
	}
	offline, online := settings(stages[1]), settings(stages[3])
	if !slices.Equal(offline, online) || len(online) != 8 {
		t.Errorf("offline: %q\nfrom sources: %q", offline, online)
	}
	if !slices.Contains(online, "USER 65532:65532") {
		t.Error("it runs as root")
	}
	for _, stage := range []string{stages[1], stages[3]} {
		if !strings.HasPrefix(stage, "scratch") {
			t.Error("not from scratch")
		}
	}
}
