package migrations

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// quoteIdentifier makes SQL of a name, whatever it holds.
func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// quoteLiteral makes an SQL text literal of s, whatever it holds and however
// standard_conforming_strings is set.
func quoteLiteral(s string) string {
	quoted := `'` + strings.ReplaceAll(s, `'`, `''`) + `'`
	if strings.Contains(s, `\`) {
		return ` E` + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// Literal makes an SQL text literal of s, whatever it holds.
func Literal(s string) string { return quoteLiteral(s) }

// dollarQuote puts text between dollar signs with a tag that it does not hold.
func dollarQuote(text string) string {
	tag := "$desnode$"
	for i := 1; strings.Contains(text, strings.TrimSuffix(tag, "$")); i++ {
		tag = fmt.Sprintf("$desnode%d$", i)
	}
	return tag + text + tag
}

func checkIdentifier(name string) error {
	switch {
	case name == "":
		return errors.New("a name is empty")
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return fmt.Errorf("%q is no name: it is not UTF-8, or holds a NUL byte", name)
	case len(name) > maxIdentifier:
		return fmt.Errorf("%q is longer than the %d bytes of a name in Postgres", name, maxIdentifier)
	}
	return nil
}

// splitName splits schema.table at the dots outside of double quotes, and
// takes the quotes away.
func splitName(name string) ([]string, error) {
	var parts []string
	for rest := name; ; {
		var part string
		if strings.HasPrefix(rest, `"`) {
			var ok bool
			if part, rest, ok = cutQuoted(rest); !ok {
				return nil, fmt.Errorf("%q: a double quote is not closed", name)
			}
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			part, rest = rest[:end], rest[end:]
		}
		parts = append(parts, part)
		if rest == "" {
			return parts, nil
		}
		if rest[0] != '.' {
			return nil, fmt.Errorf("%q: no dot behind a quoted name", name)
		}
		rest = rest[1:]
	}
}

// cutQuoted cuts a quoted name off the beginning of s.
func cutQuoted(s string) (name, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		return b.String(), s[i+1:], true
	}
	return "", "", false
}

// condition puts a checked condition in parentheses. The line break ends a
// comment at its end.
func condition(sql string) string {
	if strings.TrimSpace(sql) == "" {
		return ""
	}
	return "(" + sql + "\n)"
}

// checkCondition refuses a condition that would end the parentheses, or the
// statement, around it. It is the operator's own SQL: this is against
// mistakes.
func checkCondition(sql string) error {
	if !utf8.ValidString(sql) || strings.ContainsRune(sql, 0) {
		return errors.New("not UTF-8, or holds a NUL byte")
	}
	depth := 0
	for i := 0; i < len(sql); {
		n, err := skipToken(sql[i:])
		if err != nil {
			return err
		}
		if n > 0 {
			i += n
			continue
		}
		switch sql[i] {
		case ';':
			return errors.New("holds a semicolon; one condition is wanted")
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth < 0 {
			return errors.New("closes a parenthesis that it did not open")
		}
		i++
	}
	if depth > 0 {
		return errors.New("does not close a parenthesis")
	}
	return nil
}

// skipToken returns the length of the literal, quoted name or comment at the
// beginning of sql; 0: there is none.
func skipToken(sql string) (int, error) {
	switch {
	case sql[0] == '\'', sql[0] == '"':
		// A doubled quote is two literals to this loop, which is as good. A
		// backslash may escape a quote in E'…': both readings are refused.
		end := strings.IndexByte(sql[1:], sql[0])
		if end < 0 {
			return 0, fmt.Errorf("does not close %c", sql[0])
		}
		if strings.Contains(sql[:end+2], `\'`) {
			return 0, errors.New(`holds \'; write ''`)
		}
		return end + 2, nil
	case strings.HasPrefix(sql, "--"):
		if end := strings.IndexByte(sql, '\n'); end >= 0 {
			return end + 1, nil
		}
		return len(sql), nil
	case strings.HasPrefix(sql, "/*"), sql[0] == '$':
		return 0, errors.New("holds /* or $; write it without block comments and dollar quotes")
	}
	return 0, nil
}

// ownRelations lists the names in schema desnode that no source's view may
// have.
func ownRelations() []string {
	return []string{"cluster", "entry", "file_id", "files", "schema_version", "files_version"}
}
