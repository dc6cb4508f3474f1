package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The parts of the node's answers that the checks need.
type (
	status struct {
		Sources []struct {
			Name   string `json:"name"`
			Error  string `json:"error"`
			States map[string]struct {
				Rows int64 `json:"rows"`
			} `json:"states"`
		} `json:"sources"`
		Uploads []struct {
			Key string `json:"key"`
		} `json:"uploads"`
	}
	packInfo struct {
		ID      string     `json:"id"`
		Key     string     `json:"key"`
		Records int64      `json:"records"`
		Dead    int64      `json:"dead"`
		Copies  []copyInfo `json:"copies"`
	}
	copyInfo struct {
		VerifiedAt time.Time `json:"verified_at"`
		Damage     string    `json:"damage"`
	}
	packList struct {
		Packs []packInfo `json:"packs"`
	}
	located struct {
		In     string `json:"in"`
		State  string `json:"state"`
		Pack   string `json:"pack"`
		SHA256 string `json:"sha256"`
		Size   int64  `json:"size"`
	}
	streamEnd struct {
		Done  bool            `json:"done"`
		Error json.RawMessage `json:"error"`
	}
)

// client talks to one life of the node.
type client struct{ base string }

var errStatus = errors.New("unexpected answer")

func (c client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return http.DefaultClient.Do(req)
}

func (c client) getJSON(ctx context.Context, path string, out any) error {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return problem(resp, path)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// stream posts a request whose answer is a line of JSON an event, and returns
// nil only when the last one says that all is done.
func (c client) stream(ctx context.Context, path string, body any) error {
	resp, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return problem(resp, path)
	}
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var end streamEnd
			if err := json.Unmarshal(line, &end); err != nil {
				return fmt.Errorf("POST %s: %w", path, err)
			}
			switch {
			case len(end.Error) > 0 && string(end.Error) != "null":
				return fmt.Errorf("POST %s: %s: %w", path, end.Error, errStatus)
			case end.Done:
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("POST %s: ended without done: %w", path, err)
		}
	}
}

// read fetches a file and hashes it.
func (c client) read(ctx context.Context, name string) (code int, sum [sha256.Size]byte, err error) {
	resp, err := c.do(ctx, http.MethodGet, "/files/"+escape(name), nil)
	if err != nil {
		return 0, sum, err
	}
	defer resp.Body.Close()
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		return 0, sum, err
	}
	return resp.StatusCode, [sha256.Size]byte(h.Sum(nil)), nil
}

func escape(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

func problem(resp *http.Response, path string) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 2048)) // only to show it
	return fmt.Errorf("%s: %s: %s: %w", path, resp.Status, bytes.TrimSpace(b), errStatus)
}
