package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

const defaultAddr = "http://127.0.0.1:8080"

// clients gives the commands the flag that says which node they talk to.
func (a *app) clients(cmds ...*cobra.Command) []*cobra.Command {
	for _, c := range cmds {
		c.Flags().StringVar(&a.addr, "addr", "", "URL of a node (DESNODE_ADDR, default "+defaultAddr+")")
	}
	return cmds
}

// client talks to one node.
type client struct {
	base string // without a slash at the end
	http *http.Client
}

// client returns the client of the node that the command line names.
func (a *app) client() (*client, error) {
	return newClient(cmp.Or(a.addr, os.Getenv("DESNODE_ADDR"), defaultAddr))
}

func newClient(addr string) (*client, error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usage(fmt.Sprintf("%q is not the URL of a node, such as %s", addr, defaultAddr))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = demoReaders
	transport.DisableCompression = true
	return &client{base: strings.TrimRight(addr, "/"), http: &http.Client{Transport: transport}}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// escapeName returns a name as the rest of a URL's path. Slashes stay.
func escapeName(name string) string {
	segments := strings.Split(name, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// do sends one request and returns an answer of status 2xx. Any other becomes
// an *api.Problem; no answer at all becomes errUnavailable. The caller closes
// the body.
func (c *client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, &usageError{err}
	}
	if body != nil {
		req.Header.Set("Content-Type", api.TypeJSON)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unanswered(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	return nil, problemOf(resp)
}

func (c *client) unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var asURL *url.Error
	if errors.As(err, &asURL) {
		err = asURL.Err
	}
	return fmt.Errorf("no node answers at %s: %w (%w); start one with 'desnode start', or name another with --addr", c.base, errUnavailable, err)
}

// problemOf reads an error answer and closes its body.
func problemOf(resp *http.Response) error {
	defer resp.Body.Close()
	var p api.Problem
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil || json.Unmarshal(b, &p) != nil || p.Code == "" {
		p = api.Problem{Status: resp.StatusCode, Code: codeOf(resp.StatusCode), Title: resp.Status}
		if resp.Request != nil && resp.Request.Method == http.MethodHead {
			p.Detail = headDetails[resp.StatusCode]
		}
	}
	return &p
}

// headDetails stand in for what the answers to HEAD leave out.
var headDetails = map[int]string{
	http.StatusNotFound:           "no such file",
	http.StatusGone:               "the name was removed",
	http.StatusTooManyRequests:    "too many misses from this client",
	http.StatusServiceUnavailable: "the node can't tell at the moment; try again",
}

// codeOf stands in where an answer has no body: HEAD, or something that is not
// a node.
func codeOf(status int) api.Code {
	switch status {
	case http.StatusBadRequest:
		return api.CodeInvalidName
	case http.StatusNotFound:
		return api.CodeNotFound
	case http.StatusGone:
		return api.CodeGone
	case http.StatusTooManyRequests:
		return api.CodeBusy
	case http.StatusServiceUnavailable:
		return api.CodeUnavailable
	}
	return api.CodeInternal
}

// show sends one request to the node that the command line names and prints the
// answer: as JSON, or what write writes.
func show[T any](ctx context.Context, a *app, method, path string, body any, write func(io.Writer, T) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.close()
	answer, err := call[T](ctx, c, method, path, body)
	if err != nil {
		return err
	}
	return a.print(answer, func(w io.Writer) error { return write(w, answer) })
}

// call sends one request and decodes the one JSON object of the answer.
func call[T any](ctx context.Context, c *client, method, path string, body any) (T, error) {
	var v T
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("read the node's answer: %w: %w", errUnavailable, err)
	}
	return v, nil
}

// stream sends one request and calls each for every event of the answer. It
// returns nil only after the event that says the work is done, without error.
func stream[T any](ctx context.Context, c *client, path string, body any, each func(T) error) error {
	resp, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var line json.RawMessage
		if err := dec.Decode(&line); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("the node broke off before the work was done: %w: %w", errUnavailable, err)
		}
		var end api.End
		var event T
		if err := errors.Join(json.Unmarshal(line, &end), json.Unmarshal(line, &event)); err != nil {
			return fmt.Errorf("read the node's answer: %w", err)
		}
		if err := each(event); err != nil {
			return err
		}
		if end.Done && end.Error != nil {
			return end.Error
		}
		if end.Done {
			return nil
		}
	}
}
