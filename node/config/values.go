package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// This file reads the values of keys: how a YAML value, or the text of a
// variable or flag, becomes what a field holds.

func text(field func(*Config) *string) func(*Config, place, any) error {
	return func(c *Config, _ place, v any) (err error) {
		*field(c), err = asString(v)
		return err
	}
}

func duration(field func(*Config) *time.Duration) func(*Config, place, any) error {
	return func(c *Config, _ place, v any) (err error) {
		*field(c), err = asDuration(v)
		return err
	}
}

func size(field func(*Config) *Size) func(*Config, place, any) error {
	return func(c *Config, _ place, v any) (err error) {
		*field(c), err = ParseSize(fmt.Sprint(v))
		return err
	}
}

// sourceText sets a text of a source.
func sourceText(field func(*Source) *string) func(*Config, place, any) error {
	return func(c *Config, at place, v any) error {
		text, err := asString(v)
		c.source(at.source, func(s *Source) { *field(s) = text })
		return err
	}
}

// sourceWord sets what a source has for one word.
func sourceWord(field func(*Source) *map[string]string) func(*Config, place, any) error {
	return func(c *Config, at place, v any) error {
		text, err := asString(v)
		c.source(at.source, func(s *Source) {
			if *field(s) == nil {
				*field(s) = map[string]string{}
			}
			(*field(s))[at.word] = text
		})
		return err
	}
}

// withoutValue keeps an unreadable value, which may hold a password, out of the
// error.
func withoutValue(set func(*Config, place, any) error) func(*Config, place, any) error {
	return func(c *Config, at place, v any) error {
		if err := set(c, at, v); err != nil {
			return invalidf("not a text")
		}
		return nil
	}
}

// source changes one source, which there is afterwards.
func (c *Config) source(name string, change func(*Source)) {
	s := c.Sources[name]
	change(&s)
	c.Sources[name] = s
}

// asString reads a text. A number or a truth value is none: YAML has changed
// how it is written ("01" is 1 by then).
func asString(v any) (string, error) {
	s, ok := v.(string)
	switch {
	case ok && s != "":
		return s, nil
	case ok || isComposite(v):
		return "", invalidf("%v is not a text", v)
	}
	return "", invalidf("%v is not a text; put it in quotes", v)
}

func isComposite(v any) bool {
	switch v.(type) {
	case []any, map[string]any:
		return true
	}
	return false
}

// asList reads a YAML list, or one text with separators.
func asList(v any, separator string) ([]string, error) {
	list := []string{}
	switch v := v.(type) {
	case string:
		for s := range strings.SplitSeq(v, separator) {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
	case []any:
		for _, e := range v {
			s, err := asString(e)
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
	default:
		return nil, invalidf("%v is not a list", v)
	}
	return list, nil
}

func asBool(v any) (bool, error) {
	switch fmt.Sprint(v) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, invalidf("%v is neither true nor false", v)
}

func asInt(v any) (int, error) {
	n, err := strconv.Atoi(fmt.Sprint(v))
	if err != nil {
		return 0, invalidf("%v is not a whole number", v)
	}
	return n, nil
}

func asInt64(v any) (int64, error) {
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	if err != nil {
		return 0, invalidf("%v is not a whole number", v)
	}
	return n, nil
}

func asDuration(v any) (time.Duration, error) {
	d, err := time.ParseDuration(fmt.Sprint(v))
	if err != nil {
		return 0, invalidf("%q is not a duration; write a number and a unit, such as 2160h or 30m", fmt.Sprint(v))
	}
	return d, nil
}

// formatDuration writes whole hours and minutes without the zeros behind them.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
