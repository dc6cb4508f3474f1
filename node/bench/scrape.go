package bench

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Metrics are a node's figures at one moment: series, as /metrics writes them
// with their labels, and values.
type Metrics map[string]float64

// Scrape reads a node's metrics.
func Scrape(ctx context.Context, client *http.Client, base string) (Metrics, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics: %s", res.Status)
	}
	m := Metrics{}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ') // label values may hold spaces, numbers don't
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		m[line[:at]] = value
	}
	return m, lines.Err()
}

// Since returns by how much the series of one family have grown since before
// was, by their labels; series that stood still are left out.
func (m Metrics) Since(before Metrics, family string) map[string]int64 {
	grown := map[string]int64{}
	for series, value := range m {
		labels, ok := strings.CutPrefix(series, family)
		if !ok || labels != "" && !strings.HasPrefix(labels, "{") {
			continue
		}
		if n := int64(value - before[series]); n != 0 {
			grown[strings.Trim(labels, "{}")] = n
		}
	}
	return grown
}

// Has reports whether there is a series of the family.
func (m Metrics) Has(family string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(m)), func(series string) bool {
		return series == family || strings.HasPrefix(series, family+"{")
	})
}
