package api

import (
	"encoding/base64"
	"encoding/hex"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
)

// Header values that many answers share. They are assigned, never appended to.
var (
	acceptBytes = []string{"bytes"}
	acceptNone  = []string{"none"}
	nosniff     = []string{"nosniff"}
	noStore     = []string{"no-store"}
	noCache     = []string{"no-cache"} // a newer version may be archived at any time: ask again, the ETag makes it cheap
	sandbox     = []string{"sandbox"}
	yes         = []string{"true"}
)

// entityHeaders are the headers that describe a file, none of which stands in a
// problem.
var entityHeaders = []string{
	"Accept-Ranges", "Cache-Control", "Content-Disposition", "Content-Length", "Content-Range",
	"Content-Security-Policy", "Content-Type", "Etag", "Last-Modified", "Repr-Digest", "X-Des-Pack", "X-Des-Unconfirmed",
}

// entity is a file as HTTP describes it: the header values, made once for each
// record in memory and shared by all its answers. Keys of header maps are
// written in canonical form throughout, since assigning to the map is several
// times cheaper than Header.Set.
type entity struct {
	validators
	etagLine    []string
	modified    []string // Last-Modified; nil: unknown
	digest      []string // Repr-Digest; nil: unknown
	contentType []string
	disposition []string
	length      []string // Content-Length of the whole
	policy      []string // Content-Security-Policy; nil: none
	ranges      []string // Accept-Ranges
	cache       []string // Cache-Control
	pack        []string // X-Des-Pack; nil: not from a pack
	shard       []string // X-Des-Shard
}

// recordEntity describes a record, for Record.Memo. The length of a shard's
// prefix is fixed when the cluster is formed, so the shard may be kept with it.
func (s *Server) recordEntity(rec *retriever.Record) any {
	h := rec.Header
	e := describe(h.Name, h.Meta.ContentType, h.ModTime, h.Size)
	e.etag = `"` + hex.EncodeToString(h.SHA256[:]) + `"`
	e.etagLine = []string{e.etag}
	e.digest = []string{"sha-256=:" + base64.StdEncoding.EncodeToString(h.SHA256[:]) + ":"}
	e.ranges, e.cache = acceptBytes, noCache
	e.pack = []string{rec.Pack.String()}
	e.shard = shardLine(desformat.HashName(h.Name).Shard(s.cfg.ShardBits()))
	return e
}

// unpackedEntity describes an original that is not packed yet. It may change
// under its name at any time, hence the weak ETag, and parts of it can't be
// verified, hence no ranges.
func unpackedEntity(f *retriever.File) *entity {
	name := f.Row.DesName
	if name == "" {
		name = f.Row.Name
	}
	info := f.Original.Info()
	e := describe(name, f.Row.ContentType, info.ModTime, info.Size)
	e.etag = `W/"` + strconv.FormatInt(info.Size, 16) + "-" + strconv.FormatInt(info.ModTime.UnixNano(), 16) + `"`
	e.etagLine = []string{e.etag}
	e.ranges, e.cache = acceptNone, noStore
	e.shard = shardLine(f.Shard)
	return e
}

// describe fills in what records and originals have in common.
func describe(name, mapped string, modified time.Time, size int64) *entity {
	e := &entity{
		disposition: []string{contentDisposition(name)},
		length:      []string{strconv.FormatInt(size, 10)},
	}
	if !modified.IsZero() && modified.Unix() >= 0 && modified.Year() <= 9999 {
		e.validators.modified = modified.UTC().Truncate(time.Second)
		e.modified = []string{e.validators.modified.Format(http.TimeFormat)}
	}
	contentType := mediaType(name, mapped)
	e.contentType = []string{contentType}
	if activeContent(contentType) {
		e.policy = sandbox
	}
	return e
}

// set puts the entity's headers on an answer.
func (e *entity) set(h http.Header) {
	h["Etag"] = e.etagLine
	if e.modified != nil {
		h["Last-Modified"] = e.modified
	}
	if e.digest != nil {
		h["Repr-Digest"] = e.digest
	}
	h["Content-Type"] = e.contentType
	h["Content-Disposition"] = e.disposition
	h["X-Content-Type-Options"] = nosniff
	if e.policy != nil {
		h["Content-Security-Policy"] = e.policy
	}
	h["Accept-Ranges"] = e.ranges
	h["Cache-Control"] = e.cache
	if e.pack != nil {
		h["X-Des-Pack"] = e.pack
	}
}

// contentDisposition names the file for saving, in the plain form with
// everything beyond ASCII replaced, and in the extended form of RFC 8187.
func contentDisposition(name string) string {
	base := name[strings.LastIndexByte(name, '/')+1:]
	var b strings.Builder
	b.WriteString(`inline; filename="`)
	for _, r := range base {
		switch {
		case r < ' ', r >= 0x7f, r == '"', r == '\\', r == '%':
			b.WriteByte('_') // % since some clients decode it there
		default:
			b.WriteRune(r)
		}
	}
	b.WriteString(`"; filename*=UTF-8''`)
	const digits = "0123456789ABCDEF"
	for i := range len(base) {
		if c := base[i]; attrChar(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// attrChar reports whether c stands for itself in an extended parameter value
// (RFC 8187, attr-char).
func attrChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$&+-.^_`|~", c) >= 0
}

// mediaType returns the mapped type when it is one, else what the extension
// stands for.
func mediaType(name, mapped string) string {
	if mapped != "" {
		if kind, params, err := mime.ParseMediaType(mapped); err == nil && strings.Contains(kind, "/") {
			if clean := mime.FormatMediaType(kind, params); clean != "" {
				return clean
			}
		}
	}
	base := name[strings.LastIndexByte(name, '/')+1:]
	if dot := strings.LastIndexByte(base, '.'); dot >= 0 {
		return byExtension(strings.ToLower(base[dot+1:]))
	}
	return octetStream
}

// activeContent reports whether a browser would run scripts of such a file, on
// this origin: it is shown without them.
func activeContent(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	switch strings.TrimSpace(kind) {
	case "text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml":
		return true
	}
	return strings.HasSuffix(kind, "+xml")
}
