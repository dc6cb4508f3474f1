package main

import (
	"bufio"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// machine says on what a run was made, and with which versions. What can't be
// found out is said to be unknown: a report is not lost for it. s3 is the S3
// server's binary.
func machine(ctx context.Context, s *scene, s3 string) []figure {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return []figure{
		{"desnode", built(s.bin)},
		{"Postgres", s.postgresVersion(ctx)},
		{"S3 server", built(s3)},
		{"processor", fmt.Sprintf("%s, %d used", orUnknown(lineOf("/proc/cpuinfo", "model name")), runtime.NumCPU())},
		{"memory", orUnknown(lineOf("/proc/meminfo", "MemTotal"))},
		{"kernel", runtime.GOOS + "/" + runtime.GOARCH + " " + orUnknown(strings.TrimSpace(string(kernel)))},
	}
}

// built says what a Go program was built from.
func built(bin string) string {
	info, err := buildinfo.ReadFile(bin)
	if err != nil {
		return "unknown"
	}
	text := filepath.Base(info.Main.Path) + " " + info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			text += ", commit " + s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				text += " and changes"
			}
		case "-tags":
			text += ", tags " + s.Value
		}
	}
	return text + ", " + info.GoVersion
}

func (s *scene) postgresVersion(ctx context.Context) (version string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := s.connect(ctx)
	if err != nil {
		return "unknown"
	}
	defer func() { _ = closeConn(conn) }() // the answer is there, or none will come
	if conn.QueryRow(ctx, "SHOW server_version").Scan(&version) != nil {
		return "unknown"
	}
	return version
}

// lineOf returns what follows a word and a colon in a file of /proc.
func lineOf(path, word string) string {
	f, err := os.Open(path) // #nosec G304 -- one of two
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == word {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
