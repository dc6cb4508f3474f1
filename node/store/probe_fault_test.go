package store

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestProbeFindsWhatIsBroken breaks a real server in one way at a time: the
// finding for it is there, and at its level.
func TestProbeFindsWhatIsBroken(t *testing.T) {
	p := startProbed(t)
	for i, tc := range []struct {
		name  string
		fault fault
		check string
		level Level
		seen  string
	}{
		{"read without list", fault{answer: forbidMissing}, "read credentials", LevelWarn, "403 AccessDenied"},
		{"everything is found", fault{ask: func(r *http.Request) *http.Response {
			if aims(r, "GET", "/absent") {
				return say(http.StatusOK, "<html>Welcome</html>")
			}
			return nil
		}}, "read credentials", LevelBad, "nobody made"},
		{"another's 404", fault{ask: func(r *http.Request) *http.Response {
			if aims(r, "GET", "/absent") {
				return say(http.StatusNotFound, "<html>Not found</html>")
			}
			return nil
		}}, "read credentials", LevelBad, "404"},
		{"put fails", refuse(func(r *http.Request) bool { return aims(r, "PUT", "/first") }, 500, "InternalError"), "write credentials", LevelBad, "500 InternalError"},
		{"list forbidden", refuse(func(r *http.Request) bool { return asks(r, "GET", "list-type") }, 403, "AccessDenied"), "collect credentials", LevelBad, "403 AccessDenied"},
		{"what was written can't be read", refuse(func(r *http.Request) bool { return aims(r, "GET", "/rights") }, 403, "AccessDenied"), "read credentials", LevelBad, "read what was written"},
		{"overwriting refused", refuse(second("PUT", "/rights"), 403, "AccessDenied"), checkOverwrite, LevelOK, "refused"},
		{"overwriting fails", refuse(second("PUT", "/rights"), 500, "InternalError"), checkOverwrite, LevelUntold, "500"},

		{"ETag of put", fault{answer: wrongETag("PUT")}, checkVersions, LevelBad, "own ETag"},
		{"ETag of head", fault{answer: wrongETag("HEAD")}, checkVersions, LevelBad, "put said ETag"},
		{"If-Match ignored on get", without("GET", "If-Match"), checkVersions, LevelBad, "wrong ETag gave the object"},
		{"If-Match refused on get", refuse(func(r *http.Request) bool { return r.Method == "GET" && r.Header.Get("If-Match") != "" }, 412, "PreconditionFailed"), checkVersions, LevelBad, "own ETag"},
		{"version of head", fault{answer: func(r *http.Request, res *http.Response) {
			if r.Method == "HEAD" {
				res.Header.Set("X-Amz-Version-Id", "another")
			}
		}}, checkVersions, LevelBad, `head "another"`},

		{"ranges ignored", without("GET", "Range"), checkRanges, LevelBad, "gave 1000 bytes"},
		{"range one off", fault{answer: func(r *http.Request, res *http.Response) {
			if r.Header.Get("Range") == "bytes=100-199" {
				replace(res, probeBytes(1000)[101:201])
			}
		}}, checkRanges, LevelBad, "gave 100 bytes"},
		{"suffix ranges refused", refuse(func(r *http.Request) bool { return r.Header.Get("Range") == "bytes=-10" }, 501, "NotImplemented"), checkRanges, LevelBad, "bytes=-10: 501"},
		{"beyond the end", fault{ask: func(r *http.Request) *http.Response {
			if r.Header.Get("Range") == "bytes=1000-1009" {
				return say(http.StatusPartialContent, "")
			}
			return nil
		}}, checkRanges, LevelWarn, "beyond the end"},
		{"empty objects are filled", fault{ask: func(r *http.Request) *http.Response {
			if aims(r, "GET", "/empty") {
				return say(http.StatusOK, "x")
			}
			return nil
		}}, checkEmpty, LevelWarn, "1 bytes"},
		{"empty objects refused", refuse(func(r *http.Request) bool { return aims(r, "PUT", "/empty") }, 411, "MissingContentLength"), checkEmpty, LevelWarn, "411"},

		{"CRC32C not compared", without("PUT", "X-Amz-Checksum-Crc32c"), checkChecksums, LevelWarn, "not compared: CRC32C; compared: SHA256, Content-MD5"},
		{"no checksum compared", fault{ask: func(r *http.Request) *http.Response {
			r.Header.Del("X-Amz-Checksum-Crc32c")
			r.Header.Del("X-Amz-Checksum-Sha256")
			r.Header.Del("Content-Md5")
			return nil
		}}, checkChecksums, LevelWarn, "not compared: CRC32C, SHA256, Content-MD5"},
		{"right checksums refused", refuse(func(r *http.Request) bool { return r.Header.Get("X-Amz-Checksum-Sha256") != "" }, 400, "InvalidRequest"), checkChecksums, LevelWarn, "a put with a right SHA256: 400"},

		{"trailers refused", refuse(func(r *http.Request) bool { return r.Header.Get("X-Amz-Trailer") != "" }, 501, "NotImplemented"), checkTrailers, LevelUntold, "not supported: 501"},
		{"trailers not compared", fault{ask: dropTrailer}, checkTrailers, LevelWarn, "not compared"},
		{"trailers in the content", fault{ask: keepFrames}, checkTrailers, LevelWarn, "stored as part of the content"},

		{"If-None-Match ignored", without("PUT", "If-None-Match"), checkCreate, LevelWarn, "replaced the object"},
		{"If-None-Match unknown", refuse(func(r *http.Request) bool { return r.Header.Get("If-None-Match") != "" }, 501, "NotImplemented"), checkCreate, LevelWarn, "not supported: 501"},
		{"If-None-Match fails", refuse(func(r *http.Request) bool { return aims(r, "PUT", "/create") }, 500, "InternalError"), checkCreate, LevelBad, "500"},
		{"If-None-Match fails at what is there", refuse(second("PUT", "/create"), 500, "InternalError"), checkCreate, LevelBad, "a second put"},
		{"many win the race", fault{ask: func(r *http.Request) *http.Response {
			if aims(r, "PUT", "/race") {
				r.Header.Del("If-None-Match")
			}
			return nil
		}}, checkCreate, LevelBad, "16 of 16 writers"},
		{"nobody wins the race", refuse(func(r *http.Request) bool { return aims(r, "PUT", "/race") }, 409, "ConditionalRequestConflict"), checkCreate, LevelWarn, "none created"},
		{"the race fails", refuse(func(r *http.Request) bool { return aims(r, "PUT", "/race") }, 503, "SlowDown"), checkCreate, LevelBad, "503 SlowDown"},
		{"the winner is replaced", winnerReplaced(), checkCreate, LevelBad, "not the winner's"},

		{"condition of complete ignored", without("POST", "If-None-Match"), checkComplete, LevelWarn, "replaced the object"},
		{"condition of complete unknown", refuse(func(r *http.Request) bool { return r.Method == "POST" && r.Header.Get("If-None-Match") != "" }, 501, "NotImplemented"), checkComplete, LevelWarn, "not supported"},
		{"complete fails", refuse(func(r *http.Request) bool { return r.Method == "POST" && r.Header.Get("If-None-Match") != "" }, 500, "InternalError"), checkComplete, LevelBad, "500"},
		{"complete refused and done", fault{ask: ignoreCondition("POST"), answer: func(r *http.Request, res *http.Response) {
			if r.Method == "POST" && r.URL.Query().Has("uploadId") {
				res.StatusCode = http.StatusPreconditionFailed
			}
		}}, checkComplete, LevelWarn, "replaced nevertheless"},
		{"multipart unknown", refuse(func(r *http.Request) bool { return asks(r, "POST", "uploads") }, 501, "NotImplemented"), checkUploads, LevelBad, "start: 501"},

		{"uploads not listed", fault{ask: func(r *http.Request) *http.Response {
			if asks(r, "GET", "uploads") {
				return say(200, "<ListMultipartUploadsResult></ListMultipartUploadsResult>")
			}
			return nil
		}}, checkUploads, LevelWarn, "not listed"},
		{"uploads can't be listed", refuse(func(r *http.Request) bool { return asks(r, "GET", "uploads") }, 403, "AccessDenied"), checkUploads, LevelWarn, "can't be listed: 403"},
		{"abort fails", refuse(func(r *http.Request) bool {
			return asks(r, "DELETE", "uploadId") && strings.HasSuffix(r.URL.Path, "/upload")
		}, 500, "InternalError"), checkUploads, LevelBad, "abort: 500"},
		{"abort does nothing", fault{ask: func(r *http.Request) *http.Response {
			if asks(r, "DELETE", "uploadId") {
				return say(204, "")
			}
			return nil
		}}, checkUploads, LevelWarn, "still listed"},

		{"lists are behind", staleList(""), checkList, LevelWarn, "just written"},
		{"lists show what is gone", staleList("/listed/"), checkList, LevelWarn, "just deleted"},
		{"copies are refused", refuse(func(r *http.Request) bool { return r.Header.Get("X-Amz-Copy-Source") != "" }, 501, "NotImplemented"), checkMove, LevelBad, "copy: 501"},
		{"copies differ", fault{ask: func(r *http.Request) *http.Response {
			if aims(r, "GET", "/quarantine/move") {
				return say(200, "another")
			}
			return nil
		}}, checkMove, LevelBad, "differs"},
		{"deletes do nothing", fault{ask: func(r *http.Request) *http.Response {
			if aims(r, "DELETE", "/move") {
				return say(204, "")
			}
			return nil
		}}, checkMove, LevelBad, "there still"},

		{"If-Match ignored on delete", without("DELETE", "If-Match"), checkDelete, LevelWarn, "deleted the object"},
		{"If-Match unknown on delete", refuse(func(r *http.Request) bool { return r.Method == "DELETE" && r.Header.Get("If-Match") != "" }, 501, "NotImplemented"), checkDelete, LevelWarn, "not supported"},
		{"delete fails", refuse(func(r *http.Request) bool { return r.Method == "DELETE" && r.Header.Get("If-Match") != "" }, 500, "InternalError"), checkDelete, LevelBad, "500"},
		{"delete says done", fault{ask: func(r *http.Request) *http.Response {
			if r.Method == "DELETE" && r.Header.Get("If-Match") != "" {
				return say(204, "")
			}
			return nil
		}}, checkDelete, LevelWarn, "answered as done"},
		{"If-Match never fits", fault{ask: func(r *http.Request) *http.Response {
			if r.Method == "DELETE" && r.Header.Get("If-Match") != "" {
				return sayError(412, "PreconditionFailed")
			}
			return nil
		}}, checkDelete, LevelWarn, "own ETag"},

		{"keys lose their case", fault{ask: func(r *http.Request) *http.Response {
			r.URL.Path = strings.ReplaceAll(r.URL.Path, "/Case", "/case")
			return nil
		}}, checkKeys, LevelWarn, "one object"},
		{"keys are mangled", fault{ask: func(r *http.Request) *http.Response {
			if r.Method == "GET" && strings.Contains(r.URL.Path, "odd") {
				return sayError(404, "NoSuchKey")
			}
			return nil
		}}, checkKeys, LevelBad, "outside ASCII"},

		{"aborted uploads take parts", fault{ask: func(r *http.Request) *http.Response {
			if r.Method == "PUT" && strings.HasSuffix(r.URL.Path, "/upload") {
				return say(200, "")
			}
			return nil
		}}, checkUploads, LevelWarn, "a part could be sent"},
		{"no dates", fault{answer: func(_ *http.Request, res *http.Response) { res.Header.Del("Date") }}, CheckClock, LevelUntold, "no date"},
		{"clock", fault{answer: func(_ *http.Request, res *http.Response) {
			res.Header.Set("Date", time.Now().Add(-8*time.Minute).UTC().Format(http.TimeFormat))
		}}, CheckClock, LevelWarn, "8m0s behind"},

		{"versions are not told", refuse(func(r *http.Request) bool { return asks(r, "GET", "versioning") }, 403, "AccessDenied"), checkVersioning, LevelUntold, "403"},
		{"MFA delete", setting("versioning", 200, "<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>"), checkVersioning, LevelWarn, "second factor"},
		{"object lock", setting("object-lock", 200, "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Years>2</Years></DefaultRetention></Rule></ObjectLockConfiguration>"), checkLock, LevelWarn, "730 days (compliance)"},
		{"object lock without retention", setting("object-lock", 200, "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"), checkLock, LevelOK, "without a default retention"},
		{"object lock is not told", refuse(func(r *http.Request) bool { return asks(r, "GET", "object-lock") }, 403, "AccessDenied"), checkLock, LevelUntold, "403"},
		{"packs expire", setting("lifecycle", 200, "<LifecycleConfiguration><Rule><ID>old</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter><Expiration><Days>365</Days></Expiration></Rule></LifecycleConfiguration>"), checkLifecycle, LevelBad, `rule "old" deletes`},
		{"no lifecycle", setting("lifecycle", 404, "<Error><Code>NoSuchLifecycleConfiguration</Code></Error>"), checkLifecycle, LevelOK, "no rule"},
		{"lifecycle is not told", refuse(func(r *http.Request) bool { return asks(r, "GET", "lifecycle") }, 403, "AccessDenied"), checkLifecycle, LevelUntold, "403"},
		{"encryption by KMS", setting("encryption", 200, "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"), checkEncryption, LevelOK, "KMS"},
		{"encryption", setting("encryption", 200, "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"), checkEncryption, LevelOK, "AES256"},
		{"no encryption", setting("encryption", 404, "<Error><Code>ServerSideEncryptionConfigurationNotFoundError</Code></Error>"), checkEncryption, LevelWarn, "not at rest"},

		{"what was written can't be removed", refuse(func(r *http.Request) bool { return r.Method == "DELETE" && !strings.Contains(r.URL.Path, "/upload") }, 403, "AccessDenied"), checkTidy, LevelWarn, "could not be removed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bucket := fmt.Sprintf("broken-%d", i)
			if err := p.MakeBucket(bucket); err != nil {
				t.Fatal(err)
			}
			c := p.config(p.broken(t, tc.fault), bucket)
			switch tc.check {
			case CheckClock, checkVersioning, checkLock, checkLifecycle, checkEncryption:
				c.Roles = []ProbeRole{ProbeRead} // looking is enough
			}
			all := run(t, c)
			f, ok := found(all, tc.check)
			if !ok || f.Level != tc.level || !strings.Contains(f.Seen, tc.seen) {
				t.Errorf("%s: got %s, %q; want %s, %q", tc.check, f.Level, f.Seen, tc.level, tc.seen)
				for _, f := range all {
					t.Logf("%s %s: %s", f.Level, f.Check, f.Seen)
				}
			}
		})
	}
}

// refuse answers the requests that match with an error.
func refuse(match func(*http.Request) bool, status int, code string) fault {
	return fault{ask: func(r *http.Request) *http.Response {
		if match(r) {
			return sayError(status, code)
		}
		return nil
	}}
}

// second matches the second such request, and those after it.
func second(method, end string) func(*http.Request) bool {
	var c counter
	return func(r *http.Request) bool { return aims(r, method, end) && c.next() > 1 }
}

// without takes a header from requests.
func without(method, header string) fault {
	return fault{ask: func(r *http.Request) *http.Response {
		if r.Method == method {
			r.Header.Del(header)
		}
		return nil
	}}
}

func ignoreCondition(method string) func(*http.Request) *http.Response {
	return without(method, "If-None-Match").ask
}

// setting answers what is asked about the bucket.
func setting(name string, status int, body string) fault {
	return fault{ask: func(r *http.Request) *http.Response {
		if asks(r, "GET", name) {
			return say(status, body)
		}
		return nil
	}}
}

// forbidMissing is what S3 does without s3:ListBucket.
func forbidMissing(r *http.Request, res *http.Response) {
	if res.StatusCode == http.StatusNotFound && r.Method == "GET" && !strings.Contains(r.URL.RawQuery, "object-lock") {
		res.StatusCode = http.StatusForbidden
		replace(res, []byte("<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"))
	}
}

func wrongETag(method string) func(*http.Request, *http.Response) {
	return func(r *http.Request, res *http.Response) {
		if aims(r, method, "/version") {
			res.Header.Set("Etag", `"00000000000000000000000000000001"`)
		}
	}
}

// winnerReplaced lets each writer of a race write, one after the other, and
// tells only the first that it did.
func winnerReplaced() fault {
	var one sync.Mutex
	first := true
	return fault{
		ask: func(r *http.Request) *http.Response {
			if aims(r, "PUT", "/race") {
				r.Header.Del("If-None-Match")
				one.Lock()
			}
			return nil
		},
		answer: func(r *http.Request, res *http.Response) {
			if aims(r, "PUT", "/race") {
				defer one.Unlock()
				if !first {
					res.StatusCode = http.StatusPreconditionFailed
				}
				first = false
			}
		},
	}
}

// staleList answers lists of one object: with none at all, or with the one that
// the probe put, for ever.
func staleList(of string) fault {
	var mu sync.Mutex
	var key string
	return fault{ask: func(r *http.Request) *http.Response {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == "PUT" && of != "" && strings.Contains(r.URL.Path, of) {
			_, key, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		}
		if !asks(r, "GET", "list-type") || !strings.HasSuffix(r.URL.Query().Get("prefix"), "/listed/") {
			return nil
		}
		body := "<ListBucketResult>"
		if key != "" {
			body += "<Contents><Key>" + key + "</Key></Contents>"
		}
		return say(200, body+"</ListBucketResult>")
	}}
}

// unframe returns the content of a body in one chunk, without its trailer.
func unframe(body io.Reader) ([]byte, error) {
	r := bufio.NewReader(body)
	var n int
	if _, err := fmt.Fscanf(r, "%x\r\n", &n); err != nil {
		return nil, err
	}
	content := make([]byte, n)
	_, err := io.ReadFull(r, content)
	return content, err
}

// plain turns an upload in chunks into a usual one of body.
func plain(r *http.Request, body []byte) {
	for _, h := range []string{"Content-Encoding", "X-Amz-Decoded-Content-Length", "X-Amz-Trailer"} {
		r.Header.Del(h)
	}
	r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
	r.Body = io.NopCloser(bytes.NewReader(body))
}

func dropTrailer(r *http.Request) *http.Response {
	if r.Header.Get("X-Amz-Trailer") != "" {
		content, err := unframe(r.Body)
		if err != nil {
			return say(http.StatusBadRequest, err.Error())
		}
		plain(r, content)
	}
	return nil
}

func keepFrames(r *http.Request) *http.Response {
	if r.Header.Get("X-Amz-Trailer") != "" {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return say(http.StatusBadRequest, err.Error())
		}
		plain(r, body)
	}
	return nil
}
