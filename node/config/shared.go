package config

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// WithoutSecrets returns a URL as another node of the cluster may be told it:
// without the passwords that stand in it. What is no URL becomes empty.
func WithoutSecrets(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" || misplacedAt(raw, u) {
		return ""
	}
	if _, secret := u.User.Password(); secret {
		u.User = url.User(u.User.Username())
	}
	pairs := strings.Split(u.RawQuery, "&")
	u.RawQuery = strings.Join(slices.DeleteFunc(pairs, func(pair string) bool {
		key, _, _ := strings.Cut(pair, "=")
		return isSecret(key)
	}), "&")
	return u.String()
}

// WithoutSecrets returns the source as another node of the cluster may be told
// it. That node brings passwords of its own.
func (s Source) WithoutSecrets() Source {
	s.URL = WithoutSecrets(s.URL)
	s.URLs = maps.Clone(s.URLs)
	for role, raw := range s.URLs {
		s.URLs[role] = WithoutSecrets(raw)
	}
	return s
}

// HasDefaultSources reports whether the sources are those of a node for which
// none are configured.
func (c Config) HasDefaultSources() bool {
	s, ok := c.Sources[DefaultSource]
	byDefault := Default(c.DataDir).Sources[DefaultSource]
	return ok && len(c.Sources) == 1 && s.URL == byDefault.URL && len(s.Roots) == 0
}
