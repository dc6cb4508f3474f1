package marker

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// maxID is the longest row id that a record can carry, in bytes.
const maxID = 64

// check says why a row can never be archived: a failure code and a text, or
// two empty strings.
func check(row source.Row) (code, text string) {
	if err := desformat.CheckName(row.DesName); err != nil {
		return source.CodeInvalidName, err.Error()
	}
	if n := len(row.ID); n == 0 || n > maxID {
		return source.CodeInvalidName, fmt.Sprintf("the row's id is %d bytes long, allowed are 1 to %d", n, maxID)
	}
	if text := checkPath(row.Path); text != "" {
		return source.CodeInvalidPath, text
	}
	return "", ""
}

// checkPath refuses paths that no root can make sense of. Whether an absolute
// path lies below a root is for the opening to say: roots change.
func checkPath(p string) string {
	switch {
	case p == "":
		return "the path is empty"
	case !utf8.ValidString(p):
		return "the path is not UTF-8"
	case strings.ContainsRune(p, 0):
		return "the path holds a NUL byte"
	}
	if clean := path.Clean(p); clean == ".." || strings.HasPrefix(clean, "../") {
		return "the path leads out of its root"
	}
	return ""
}
