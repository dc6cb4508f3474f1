package desformat

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxNameBytes is the length of the longest name.
const MaxNameBytes = 1024

// CheckName holds name against the rules for names in the archive: UTF-8 in
// NFC, 1 to MaxNameBytes bytes, only assigned characters of the Unicode version
// of this Go release, none of them control, private-use, bidirectional-control
// or zero-width, no backslash, and segments between slashes that are neither
// empty nor "." nor "..". The error wraps ErrInvalidName and says what is wrong
// and at which byte.
//
// A name of plain ASCII is checked without allocation.
func CheckName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: it is empty", ErrInvalidName)
	}
	if len(name) > MaxNameBytes {
		return fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrInvalidName, len(name), MaxNameBytes)
	}
	ascii := true
	start := 0 // of the segment
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '/':
			if err := checkSegment(name, start, i); err != nil {
				return err
			}
			start = i + 1
		case c == '\\':
			return fmt.Errorf("%w: backslash at byte %d", ErrInvalidName, i)
		case c < ' ' || c == 0x7f:
			return fmt.Errorf("%w: control character U+%04X at byte %d", ErrInvalidName, c, i)
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if err := checkSegment(name, start, len(name)); err != nil {
		return err
	}
	if ascii {
		return nil
	}
	return checkRunes(name)
}

// checkSegment checks the segment name[start:end] and says which slash is at
// fault when it is empty.
func checkSegment(name string, start, end int) error {
	segment := name[start:end]
	switch {
	case segment == "" && start == 0:
		return fmt.Errorf("%w: it begins with a slash", ErrInvalidName)
	case segment == "" && end == len(name):
		return fmt.Errorf("%w: it ends with a slash", ErrInvalidName)
	case segment == "":
		return fmt.Errorf("%w: empty segment at byte %d", ErrInvalidName, start)
	case segment == "." || segment == "..":
		return fmt.Errorf("%w: segment %q at byte %d", ErrInvalidName, segment, start)
	}
	return nil
}

// checkRunes checks what only a name beyond ASCII can get wrong.
func checkRunes(name string) error {
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		if r == utf8.RuneError && size == 1 {
			return fmt.Errorf("%w: not UTF-8 at byte %d", ErrInvalidName, i)
		}
		if r >= utf8.RuneSelf {
			if kind := refusedRune(r); kind != "" {
				return fmt.Errorf("%w: %s character U+%04X at byte %d", ErrInvalidName, kind, r, i)
			}
		}
		i += size
	}
	if !norm.NFC.IsNormalString(name) {
		return fmt.Errorf("%w: not in Unicode normal form C; first difference at byte %d", ErrInvalidName, firstDifference(name, norm.NFC.String(name)))
	}
	return nil
}

// refusedRune says why r may not stand in a name, or nothing.
func refusedRune(r rune) string {
	switch {
	case unicode.Is(unicode.Cc, r):
		return "control"
	case unicode.Is(unicode.Co, r):
		return "private-use"
	case unicode.Is(unicode.Bidi_Control, r):
		return "bidirectional control"
	case zeroWidth(r):
		return "zero-width"
	case unicode.IsGraphic(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r):
		return ""
	}
	return "unassigned"
}

// zeroWidth reports whether r is a format character that takes no room and so
// makes two names look the same: the zero-width spaces and joiners, the word
// joiner and the invisible operators behind it, the Mongolian vowel separator,
// the byte order mark and the tags.
func zeroWidth(r rune) bool {
	switch {
	case r >= 0x200b && r <= 0x200d, r >= 0x2060 && r <= 0x2064, r == 0x180e, r == 0xfeff,
		r == 0xe0001, r >= 0xe0020 && r <= 0xe007f:
		return true
	}
	return false
}

// firstDifference returns the start of the first character of a in which a and
// b differ.
func firstDifference(a, b string) int {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	for i > 0 && i < len(a) && !utf8.RuneStart(a[i]) {
		i--
	}
	return i
}
