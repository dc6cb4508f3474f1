package node

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Alerts ask for metrics that a node has, each says what to do, and the guide
// knows it.
func TestAlertsAskForMetricsThatThereAre(t *testing.T) {
	text, err := os.ReadFile("../deploy/prometheus/desnode.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Expr        string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile("../docs/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	n, stop := start(t, testConfig(t))
	defer stop()
	known := n.request(t.Context(), "/metrics").Body.String()
	name := regexp.MustCompile(`des_[a-z0-9_]+`)
	alerts := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			alerts++
			asked := name.FindAllString(r.Expr, -1)
			if len(asked) == 0 {
				t.Errorf("%s asks for no metric", r.Alert)
			}
			for _, metric := range asked {
				if !strings.Contains(known, "# TYPE "+metric+" ") {
					t.Errorf("%s asks for %s, which no node has", r.Alert, metric)
				}
			}
			if !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
				t.Errorf("%s has no severity, summary or action", r.Alert)
			}
			if !strings.Contains(string(guide), "`"+r.Alert+"`") {
				t.Errorf("docs/operator.md does not speak of %s", r.Alert)
			}
		}
	}
	if alerts < 12 {
		t.Errorf("%d alerts", alerts)
	}
}
