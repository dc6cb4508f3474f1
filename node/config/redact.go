package config

import (
	"net/url"
	"strings"
)

// hidden stands where a password stood.
const hidden = "xxxxx"

// Redacted returns a URL as it may be shown and logged: passwords, in the user
// part or among the parameters, are replaced. What is no URL is not shown.
func Redacted(raw string) string {
	if raw == "" {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" {
		return "(not a URL)"
	}
	if misplacedAt(raw, u) {
		return u.Scheme + "://(hidden)"
	}
	_, secret := u.User.Password()
	pairs := strings.Split(u.RawQuery, "&")
	for i, pair := range pairs {
		key, _, _ := strings.Cut(pair, "=")
		if isSecret(key) {
			pairs[i], secret = key+"="+hidden, true
		}
	}
	if !secret {
		return raw // as it was written
	}
	u.RawQuery = strings.Join(pairs, "&")
	return u.Redacted()
}

// misplacedAt reports whether a password with an unescaped #, /, ? or @ may have
// torn the URL, so that parts of it stand where no password is looked for, the
// host's name among them.
func misplacedAt(raw string, u *url.URL) bool {
	_, rest, _ := strings.Cut(raw, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	return strings.Count(rest[:end], "@") > 1 || strings.Contains(u.Host, ":") && strings.Contains(rest[end:], "@")
}

// isSecret reports whether a parameter of a URL is one that holds a secret
// ("password", "sslpassword", …), however it is written.
func isSecret(key string) bool {
	if plain, err := url.QueryUnescape(key); err == nil {
		key = plain
	}
	key = strings.ToLower(key)
	for _, part := range []string{"pass", "secret", "token"} {
		if strings.Contains(key, part) {
			return true
		}
	}
	return false
}

// redactedRoot returns a root as it may be shown.
func redactedRoot(root string) string {
	prefix, target, mapped := cutRoot(root)
	if strings.Contains(target, "://") {
		target = Redacted(target)
	}
	if mapped {
		return prefix + rootArrow + target
	}
	return target
}
