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
	if text := checkPath(row.Path); text != "" {
		return source.CodeInvalidPath, text
	}
	if text := checkColumns(row); text != "" {
		return source.CodeInvalidRow, text
	}
	return "", ""
}

// checkColumns refuses rows whose required columns are empty, which drivers
// give as the zero time and as a negative size, or make no sense.
func checkColumns(row source.Row) string {
	n := len(row.ID)
	switch {
	case row.Problem != "":
		return row.Problem
	case n == 0 || n > maxID:
		return fmt.Sprintf("the id is %d bytes long, allowed are 1 to %d", n, maxID)
	case !utf8.ValidString(row.ID):
		return "the id is not UTF-8"
	case row.Size < 0:
		return "the size is negative or missing"
	case row.ModTime.IsZero():
		return "the modification time is missing"
	}
	return ""
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
