package api

import (
	"math"
	"strconv"
	"strings"
)

// byteRange is a part of a representation.
type byteRange struct {
	off, length int64
}

// contentRange returns the value of Content-Range for b out of size.
func (b byteRange) contentRange(size int64) string {
	return "bytes " + strconv.FormatInt(b.off, 10) + "-" + strconv.FormatInt(b.off+b.length-1, 10) + "/" + strconv.FormatInt(size, 10)
}

// rangeVerdict is what a Range header comes to.
type rangeVerdict uint8

// The verdicts.
const (
	rangeIgnored       rangeVerdict = iota // serve the whole
	rangeServed                            // serve the part
	rangeUnsatisfiable                     // 416
)

// parseRange evaluates a Range header for a representation of size bytes, as
// RFC 9110 §14. A unit other than bytes, bad syntax and several ranges are
// ignored, which the RFC allows. A suffix of an empty representation is all of
// it, and can't be expressed as a part.
func parseRange(header string, size int64) (byteRange, rangeVerdict) {
	unit, set, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return byteRange{}, rangeIgnored
	}
	spec, ok := onlyRange(set)
	if !ok {
		return byteRange{}, rangeIgnored
	}
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return byteRange{}, rangeIgnored
	}
	if first == "" {
		return suffixRange(last, size)
	}
	off, ok := position(first)
	if !ok {
		return byteRange{}, rangeIgnored
	}
	end := int64(math.MaxInt64)
	if last != "" {
		if end, ok = position(last); !ok || end < off {
			return byteRange{}, rangeIgnored
		}
	}
	if off >= size {
		return byteRange{}, rangeUnsatisfiable
	}
	return byteRange{off, min(end, size-1) - off + 1}, rangeServed
}

func suffixRange(digits string, size int64) (byteRange, rangeVerdict) {
	n, ok := position(digits)
	switch {
	case !ok:
		return byteRange{}, rangeIgnored
	case n == 0:
		return byteRange{}, rangeUnsatisfiable
	case size == 0:
		return byteRange{}, rangeIgnored
	}
	n = min(n, size)
	return byteRange{size - n, n}, rangeServed
}

// onlyRange returns the one range of a set; empty list elements do not count.
func onlyRange(set string) (spec string, ok bool) {
	for element := range strings.SplitSeq(set, ",") {
		element = strings.Trim(element, " \t")
		if element == "" {
			continue
		}
		if ok {
			return "", false
		}
		spec, ok = element, true
	}
	return spec, ok
}

// position parses digits; what exceeds int64 is as far as positions go.
func position(digits string) (int64, bool) {
	if digits == "" {
		return 0, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}
