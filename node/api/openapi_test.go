package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// contract parses openapi.yaml once.
var contract = sync.OnceValues(func() (*openapi3.T, error) { return openapi3.NewLoader().LoadFromData(openAPI) })

func parsedContract(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// checker is the part of a test that a check needs.
type checker interface {
	Helper()
	Errorf(format string, args ...any)
}

// endpoint finds the documented path of a request; nil: there is none. Names
// and ids may hold slashes.
func endpoint(doc *openapi3.T, u *url.URL) *openapi3.PathItem {
	path := u.EscapedPath()
	for template, item := range doc.Paths.Map() {
		prefix, _, named := strings.Cut(template, "{")
		if path == template || named && strings.HasPrefix(path, prefix) {
			return item
		}
	}
	return nil
}

// documentedResponse returns what the contract says of the answer; nil:
// nothing, which is right for unknown paths alone.
func documentedResponse(t checker, r reply) *openapi3.Response {
	t.Helper()
	doc, err := contract()
	if err != nil {
		t.Errorf("%v", err)
		return nil
	}
	item := endpoint(doc, r.Request.URL)
	if item == nil {
		if r.StatusCode != http.StatusNotFound {
			t.Errorf("undocumented path answered %d", r.StatusCode)
		}
		return doc.Components.Responses["NotFound"].Value
	}
	op := item.GetOperation(r.Request.Method)
	if op == nil {
		if r.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("undocumented method answered %d", r.StatusCode)
		}
		return doc.Components.Responses["MethodNotAllowed"].Value
	}
	res := op.Responses.Value(fmt.Sprint(r.StatusCode))
	if res == nil {
		t.Errorf("undocumented status %d", r.StatusCode)
		return nil
	}
	return res.Value
}

// ofTransport are headers that are the transport's own; Content-Type stands
// elsewhere in the contract.
var ofTransport = []string{"Date", "Connection", "Content-Type", "Content-Encoding"}

// documented holds an answer against the contract: path, method, status,
// headers, media type and, for JSON, the schema of the body.
func documented(t checker, r reply) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s %s: %d: "+format, append([]any{r.Request.Method, r.Request.URL, r.StatusCode}, args...)...)
	}
	res := documentedResponse(t, r)
	if res == nil {
		return
	}
	for key, values := range r.Header {
		if slices.Contains(ofTransport, key) {
			continue
		}
		doc := headerOf(res, key)
		if doc == nil {
			fail("undocumented header %s: %q", key, values)
			continue
		}
		if len(values) != 1 && key != "Vary" {
			fail("header %s has %d values: %q", key, len(values), values)
		}
		if err := doc.Schema.Value.VisitJSON(strings.Join(values, ", "), openapi3.EnableJSONSchema2020()); err != nil {
			fail("header %s: %v", key, err)
		}
	}
	for key, doc := range res.Headers {
		if doc.Value.Required && r.Header.Get(key) == "" {
			fail("header %s is missing", key)
		}
	}
	documentedBody(res, r, fail)
}

func headerOf(res *openapi3.Response, key string) *openapi3.Header {
	for name, doc := range res.Headers {
		if strings.EqualFold(name, key) {
			return doc.Value
		}
	}
	return nil
}

func documentedBody(res *openapi3.Response, r reply, fail func(string, ...any)) {
	if len(res.Content) == 0 {
		if len(r.body) != 0 || r.Header.Get("Content-Type") != "" {
			fail("a body of type %q that is not documented: %q", r.Header.Get("Content-Type"), r.body)
		}
		return
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		fail("content type %q: %v", r.Header.Get("Content-Type"), err)
		return
	}
	media := res.Content.Get(kind)
	if media == nil {
		fail("undocumented media type %q", kind)
		return
	}
	if r.Request.Method == http.MethodHead {
		if len(r.body) != 0 {
			fail("HEAD was answered with %d bytes", len(r.body))
		}
		return
	}
	switch {
	case r.err != nil:
	case media.Schema.Value.Description != "" && media.Schema.Ref == "", kind == "text/plain", kind == typeYAML: // bytes
	case kind == TypeStream:
		documentedStream(media.Schema.Value, r.body, fail)
	default:
		documentedJSON(media.Schema.Value, r.body, fail)
	}
}

func documentedJSON(schema *openapi3.Schema, b []byte, fail func(string, ...any)) {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		fail("body %q: %v", b, err)
		return
	}
	if err := schema.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
		fail("body %s: %v", b, err)
	}
}

// documentedStream checks each event, and that the last one and no other says
// that it is the last.
func documentedStream(schema *openapi3.Schema, b []byte, fail func(string, ...any)) {
	if !bytes.HasSuffix(b, []byte("\n")) {
		fail("the stream's last line is cut: %q", b)
	}
	lines := bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	for i, line := range lines {
		documentedJSON(schema, line, fail)
		if last := bytes.Contains(line, []byte(`"done":true`)); last != (i == len(lines)-1) {
			fail("line %d of %d: %s", i+1, len(lines), line)
		}
	}
}

func TestContractIsValid(t *testing.T) {
	doc := parsedContract(t)
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("openapi %s", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestContractListsEveryPath holds the paths in types.go against the contract,
// both ways.
func TestContractListsEveryPath(t *testing.T) {
	served := []string{
		"/files/{name}", "/ids/{id}", "/livez", "/readyz", "/metrics", "/openapi.yaml", PathLocate + "{name}",
		PathStatus, PathImport, PathArchive, PathVerify, PathFailed, PathRetry, PathPacks, PathLeases, PathMembers, PathBacklog,
		PathThrottle, PathPause, PathResume,
		PathRing, PathRemoveMember, PathLeave, PathTokens, PathRevokeToken, PathRotateKeys,
		PathUnfinished, PathRecover, PathCompare, PathBackup, PathBackups,
	}
	listed := parsedContract(t).Paths.Keys()
	slices.Sort(served)
	slices.Sort(listed)
	if !slices.Equal(served, listed) {
		t.Errorf("the contract has %v,\nserved are %v", listed, served)
	}
}

// TestContractHasTheFieldsOfTheTypes holds the JSON fields of each wire type
// against its schema, both ways: an event of a test fills in few of them.
func TestContractHasTheFieldsOfTheTypes(t *testing.T) {
	schemas := parsedContract(t).Components.Schemas
	for name, v := range map[string]any{
		"Problem": Problem{}, "ImportRequest": ImportRequest{}, "ImportEvent": ImportEvent{}, "ArchiveRequest": ArchiveRequest{},
		"ArchiveEvent": ArchiveEvent{}, "VerifyRequest": VerifyRequest{}, "VerifyEvent": VerifyEvent{}, "RetryRequest": RetryRequest{},
		"RetryResponse": RetryResponse{}, "FailedPage": FailedPage{}, "Located": Located{}, "Status": Status{},
		"SourceStatus": SourceStatus{}, "PackTotals": PackTotals{}, "CacheStatus": CacheStatus{}, "PackList": PackList{},
		"PackInfo": PackInfo{}, "LeaseList": LeaseList{}, "MemberList": MemberList{}, "Backlog": Backlog{}, "Tally": Tally{},
		"Throttle": Throttle{}, "ThrottleLimits": ThrottleLimits{}, "PauseRequest": PauseRequest{}, "ResumeRequest": ResumeRequest{},
		"SlowReason": SlowReason{}, "WorkPace": WorkPace{},
		"MemberInfo": MemberInfo{}, "RemoveMemberRequest": RemoveMemberRequest{}, "RingInfo": RingInfo{},
		"TokenRequest": TokenRequest{}, "TokenCreated": TokenCreated{}, "TokenList": TokenList{}, "RevokeRequest": RevokeRequest{},
		"LeaveRequest": LeaveRequest{}, "Left": Left{}, "RotateRequest": RotateRequest{}, "RotateEvent": RotateEvent{},
		"Unfinished": Unfinished{}, "Finding": Finding{}, "RecoverRequest": RecoverRequest{}, "RecoverEvent": RecoverEvent{},
		"CompareRequest": CompareRequest{}, "CompareEvent": CompareEvent{}, "Difference": Difference{},
		"BackupRequest": BackupRequest{}, "BackupList": BackupList{}, "BackupInfo": BackupInfo{}, "RebuildStatus": RebuildStatus{},
		"ImportFile": ImportFile{}, "FailureCode": FailureCode{}, "Pause": Pause{},
	} {
		t.Run(name, func(t *testing.T) {
			if schemas[name] == nil {
				t.Fatal("no schema")
			}
			sameFields(t, name, reflect.TypeOf(v), schemas[name].Value)
		})
	}
}

func sameFields(t *testing.T, at string, typ reflect.Type, schema *openapi3.Schema) {
	t.Helper()
	optional := map[string]bool{}
	var nested []func()
	for _, f := range reflect.VisibleFields(typ) {
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue // embedded: its fields are visible
		}
		optional[name] = strings.HasPrefix(rest, "omit")
		prop := schema.Properties[name]
		if prop == nil {
			t.Errorf("%s.%s is not in the contract", at, name)
			continue
		}
		if item := prop.Value.Items; f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && item != nil && len(item.Value.Properties) > 0 {
			nested = append(nested, func() { sameFields(t, at+"."+name, f.Type.Elem(), item.Value) })
		}
	}
	for _, check := range nested {
		check()
	}
	for name := range schema.Properties {
		if _, ok := optional[name]; !ok {
			t.Errorf("%s.%s is in the contract alone", at, name)
		}
	}
	isRequest := strings.HasSuffix(at, "Request")
	for name, may := range optional {
		if required := slices.Contains(schema.Required, name); required == may && !isRequest {
			t.Errorf("%s.%s: required %v in the contract, left out when empty: %v", at, name, required, may)
		}
	}
}

// TestTheContractRefuses makes sure that holding answers against the contract
// can fail: each of these differs from a documented answer in one thing.
func TestTheContractRefuses(t *testing.T) {
	good := func() reply {
		u, err := url.Parse("http://localhost/livez")
		if err != nil {
			t.Fatal(err)
		}
		return reply{
			Response: &http.Response{
				StatusCode: http.StatusMethodNotAllowed, Request: &http.Request{Method: http.MethodPost, URL: u},
				Header: header("X-Request-Id", "1", "X-Des-Node", "n", "Allow", "GET", "Content-Type", TypeProblem),
			},
			body: []byte(`{"type":"about:blank","title":"x","status":405,"code":"method-not-allowed"}`),
		}
	}
	for name, change := range map[string]func(r *reply){
		"another code":          func(r *reply) { r.body = bytes.Replace(r.body, []byte("method-not-allowed"), []byte("gone"), 1) },
		"another status inside": func(r *reply) { r.body = bytes.Replace(r.body, []byte("405"), []byte("404"), 1) },
		"an unknown field":      func(r *reply) { r.body = bytes.Replace(r.body, []byte("{"), []byte(`{"more":1,`), 1) },
		"a field is missing":    func(r *reply) { r.body = bytes.Replace(r.body, []byte(`"title":"x",`), nil, 1) },
		"no JSON":               func(r *reply) { r.body = []byte("x") },
		"another media type":    func(r *reply) { r.Header.Set("Content-Type", TypeJSON) },
		"no media type":         func(r *reply) { r.Header.Del("Content-Type") },
		"an unknown header":     func(r *reply) { r.Header.Set("X-More", "1") },
		"a header is missing":   func(r *reply) { r.Header.Del("Allow") },
		"a bad header":          func(r *reply) { r.Header.Set("X-Request-Id", "a b") },
		"a header twice":        func(r *reply) { r.Header.Add("Allow", "HEAD") },
		"an unknown status":     func(r *reply) { r.Request.Method, r.StatusCode = http.MethodGet, http.StatusTeapot },
		"an unknown method":     func(r *reply) { r.StatusCode = http.StatusOK },
		"an unknown path":       func(r *reply) { r.Request.URL.Path = "/live" },
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			change(&r)
			if !refused(r) {
				t.Error("taken for documented")
			}
		})
	}
	if r := good(); refused(r) {
		t.Error("the good answer is refused")
	}
}

// refused reports whether the contract does not know an answer.
func refused(r reply) bool {
	var c complaints
	documented(&c, r)
	return c > 0
}

// complaints counts the errors of a check, in the place of a test.
type complaints int

func (c *complaints) Helper()               {}
func (c *complaints) Errorf(string, ...any) { *c++ }

// TestContractListsEveryCode holds the codes of types.go against the contract.
func TestContractListsEveryCode(t *testing.T) {
	codes := []Code{
		CodeInvalidName, CodeInvalidRequest, CodeUnauthorized, CodeForbidden, CodeNotFound, CodeMethodNotAllowed, CodeConflict,
		CodeGone, CodePrecondition, CodeTooLarge, CodeMediaType, CodeRange, CodeBusy, CodeCorrupt, CodeInternal, CodeUnavailable, CodeUnconfirmed,
	}
	code := parsedContract(t).Components.Schemas["Problem"].Value.Properties["code"].Value
	if len(code.Enum) != len(codes) {
		t.Errorf("the contract has %d codes, types.go %d", len(code.Enum), len(codes))
	}
	for _, c := range codes {
		if !slices.Contains(code.Enum, any(string(c))) {
			t.Errorf("%s is not in the contract", c)
		}
	}
}
