package main

// mutants returns one broken product for each rule. The order is that of a
// file's life.
func mutants() []mutant {
	return []mutant{
		{
			name: "acknowledge-before-commit", rule: "acknowledge before commit",
			change: "the packer acknowledges the rows before AddPack",
			edits: []edit{{
				file: "node/packer/packer.go",
				old: `	added, err := b.commit(ctx)
	if err != nil {
		b.Rows, b.Bytes = 0, 0
`,
				new: `	early := &raftmeta.Pack{ID: b.id, Token: b.lease.Token, Range: b.rng, Records: b.footer.Records, Catalog: b.footer.Catalog}
	_ = p.cfg.Acks.AcknowledgeFrom(ctx, early, desformat.FetchReaderAt(b.content()), b.refused)
	added, err := b.commit(ctx)
	if err != nil {
		b.Rows, b.Bytes = 0, 0
`,
			}},
			tests: []target{{"node/safety", "TestCrashPointArchive"}},
		},
		{
			name: "delete-before-verify", rule: "delete before verify",
			change: "no verification is asked for before originals are deleted",
			edits: []edit{
				{
					file: "node/keeper/delete.go",
					old:  `	if due && k.cfg.Now().Sub(verifiedAt(p)) > verifiedWithin-verifyAhead {`,
					new:  `	if due && k.cfg.Now().IsZero() {`,
				},
				{
					file: "node/keeper/delete.go",
					old:  `at.IsZero() || age > verifiedWithin || age < 0 {`,
					new:  `age < 0 {`,
				},
				{
					file: "node/keeper/delete.go",
					old:  `	due = due && !k.forOthers(p)`,
					new:  ``,
				},
			},
			tests: []target{{"node/keeper", "TestDeletionNeedsVerificationWithin24h"}, {"node/safety", "TestCrashPointArchive"}},
		},
		{
			name: "no-token-check", rule: "no token check",
			change: "AddPack does not ask whether the lease of its token lives",
			edits: []edit{{
				file: "raftmeta/commands_pack.go",
				old:  `	if !ok || l.Job.Kind != JobPack || l.Job.Range != p.Range {`,
				new:  `	if ok && (l.Job.Kind != JobPack || l.Job.Range != p.Range) {`,
			}},
			tests: []target{{"raftmeta", "TestStaleTokenIsRefused"}, {"node/safety", "TestLateNodeChangesNothingThatIsSafe"}},
		},
		{
			name: "acknowledge-any-version", rule: "acknowledging without matching the version",
			change: "the embedded source acknowledges a row whatever its archive_version is",
			edits: []edit{{
				file: "node/source/sqlite_stmts.go",
				old: ` source_deleted_at = NULL, archive_attempts = 0, archive_error = NULL
 WHERE id = ?1 AND des_name = ?2 AND status = ?3 AND archive_version = ?4 AND size = ?5 AND modified_at = ?6`,
				new: ` source_deleted_at = NULL, archive_attempts = 0, archive_error = NULL
 WHERE id = ?1 AND des_name = ?2 AND status = ?3 AND ?4 IS NOT NULL AND size = ?5 AND modified_at = ?6`,
			}},
			tests: []target{{"node/source", "TestSQLite"}},
		},
		{
			name: "collect-by-age", rule: "collect by age alone",
			change: "an announced object is garbage when it is a day old, whether its token is fenced or not",
			edits: []edit{{
				file: "node/keeper/collect.go",
				old:  ` && v.Pack(u.Pack) == nil && v.Garbage(u)`,
				new:  ` && v.Pack(u.Pack) == nil`,
			}},
			tests: []target{{"node/keeper", "TestUploadUnderALiveLeaseIsNotGarbage"}, {"node/safety", "TestSlowUploadIsNotCollected"}},
		},
		{
			name: "unconfirmed-404", rule: "404 without confirmation",
			change: "a miss is answered from this node's own view",
			edits: []edit{{
				file: "node/retriever/locate.go",
				old: `	v, err := r.confirm(ctx)
	if err != nil {
		return found{}, nil, err
	}
	return r.locateIn(ctx, v, q)
`,
				new: `	return r.locate(ctx, q)
`,
			}},
			tests: []target{{"node/retriever", "TestAMissWithoutQuorumIsUnconfirmed"}, {"node/safety", "TestNodeBehindDoesNotSayNotFound"}},
		},
		{
			name: "no-rehash", rule: "deletion without re-hash",
			change: "the quarantined original is removed without comparing its SHA-256",
			edits: []edit{{
				file: "node/keeper/original.go",
				old:  `	case n != o.c.entry.Size || [sha256.Size]byte(sum.Sum(nil)) != o.c.entry.SHA256:`,
				new:  `	case n != o.c.entry.Size || sum.Size() != sha256.Size:`,
			}},
			tests: []target{{"node/keeper", "TestEditedOriginalIsPutBack"}, {"node/safety", "TestRandomHistoriesLoseNothing"}},
		},
		{
			name: "no-fsync-audit", rule: "missing fsync",
			change: "the audit log is not flushed",
			edits: []edit{{
				file: "node/keeper/audit.go",
				old:  `	err := l.f.Sync()`,
				new:  `	var err error`,
			}},
			tests: []target{{"node/safety", "TestCrashPointArchive"}},
		},
	}
}
