package source_test

import "os"

func mkdir(path string) error          { return os.MkdirAll(path, 0o700) }
func exists(path string) error         { _, err := os.Stat(path); return err }
func write(path, content string) error { return os.WriteFile(path, []byte(content), 0o600) }
