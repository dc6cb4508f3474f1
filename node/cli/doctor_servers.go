package cli

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"

	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
)

// bucketStore probes the store's bucket as the roles that the node's work
// needs.
func bucketStore(ctx context.Context, c config.Config, readOnly bool) []finding {
	roles := []store.ProbeRole{store.ProbeRead}
	if c.Does(config.WorkPack) && !readOnly {
		roles = append(roles, store.ProbeWrite)
	}
	if c.Does(config.WorkKeep) && !readOnly {
		roles = append(roles, store.ProbeCollect)
	}
	found, err := store.Probe(ctx, store.ProbeConfig{Roles: roles, S3: store.S3Config{
		URL: c.Store.URL, CAFile: c.Store.CAFile,
		Read: c.Store.Credentials.Read, Write: c.Store.Credentials.Write, Collect: c.Store.Credentials.Collect,
	}})
	var all []finding
	for _, f := range found {
		all = append(all, finding{"store: " + f.Check, probeResult(f.Level), f.Seen, f.Means, f.Set})
	}
	if err != nil {
		all = append(all, plain("store", resultFail, err.Error()))
	}
	return all
}

func probeResult(l store.Level) string {
	switch l {
	case store.LevelOK:
		return resultOK
	case store.LevelUntold:
		return resultUntold
	case store.LevelWarn:
		return resultWarn
	}
	return resultFail
}

// sourceFindings looks at one source: its database, then its roots.
func sourceFindings(ctx context.Context, name string, c config.Config) []finding {
	s, check := c.Sources[name], fmt.Sprintf("source %q: ", name)
	var all []finding
	switch path, err := s.Path(); {
	case s.Postgres():
		all = postgresFindings(ctx, name, s, c)
	case err == nil:
		all = append(all, folder(check+"database", filepath.Dir(path)), localDisk(check+"database's file system", filepath.Dir(path)))
	}
	for _, text := range s.Roots {
		root, err := source.ParseRoot(text)
		switch {
		case err != nil:
			all = append(all, plain(check+"root", resultFail, err.Error()))
		case root.Bucket != "":
			all = append(all, bucketRoot(ctx, check+"root", root, s, c)...)
		default:
			all = append(all, readable(check+"root", root.Folder))
		}
	}
	return all
}

// postgresFindings connects as each role and, if all are let in, makes the
// checks of `source check`.
func postgresFindings(ctx context.Context, name string, s config.Source, c config.Config) []finding {
	check := fmt.Sprintf("source %q: ", name)
	cfg := postgresConfig(name, s, c)
	var all []finding
	add := func(found []source.Finding) {
		for _, f := range found {
			all = append(all, finding{check + f.Check, string(f.Level), f.What, f.Why, f.Cure})
		}
	}
	connections := source.CheckConnections(ctx, cfg)
	add(connections)
	if slices.ContainsFunc(connections, func(f source.Finding) bool { return f.Level == source.LevelFail }) {
		return append(all, plain(check+"table", resultUntold, "what `desnode source check` looks at was left out, as a role can't connect"))
	}
	report, err := source.CheckPostgres(ctx, cfg, source.CheckScope{Delete: c.Archive.DeleteSource})
	report.Findings = slices.DeleteFunc(report.Findings, func(f source.Finding) bool {
		return f.Check == "connection" // said of each role above
	})
	add(report.Findings)
	if err != nil {
		all = append(all, plain(check+"table", resultFail, err.Error()))
	}
	return all
}

// bucketRoot asks whether originals in a bucket can be read. It writes nothing
// there.
func bucketRoot(ctx context.Context, check string, root source.Root, s config.Source, c config.Config) []finding {
	raw, caFile := s.Bucket(root.Bucket, c.Store)
	u, err := url.Parse(raw)
	if err != nil {
		return []finding{plain(check, resultFail, err.Error())}
	}
	u.Path = "/" + root.Key
	found, err := store.Probe(ctx, store.ProbeConfig{
		S3:    store.S3Config{URL: u.String(), CAFile: caFile, Read: s.S3[config.S3Read]},
		Roles: []store.ProbeRole{store.ProbeRead},
	})
	if err != nil {
		return []finding{plain(check, resultFail, err.Error())}
	}
	var all []finding
	for _, f := range found {
		switch f.Check {
		case store.CheckTransport, store.CheckRead, store.CheckClock:
		default:
			continue // of no concern to what only reads
		}
		g := finding{fmt.Sprintf("%s %s: %s", check, root, f.Check), probeResult(f.Level), f.Seen, f.Means, f.Set}
		if f.Check == store.CheckRead && f.Level != store.LevelOK {
			g.Means = "originals below it can't be packed, nor served before they are"
			g.Set = "correct the bucket in roots, and its endpoint, region and credentials in sources.*.s3"
			if f.Level == store.LevelWarn {
				g.Means = "a vanished original can't be told from a forbidden one, and is tried again and again"
				g.Set = "give the credentials of sources.*.s3.read deploy/s3/source-read.json"
			}
		}
		all = append(all, g)
	}
	return all
}
