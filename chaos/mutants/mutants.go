package main

// mutants returns one broken product for each of the eight rules, in the order
// of a file's life, and more for parts of others.
func mutants() []mutant { return append(eight(), more()...) }

func eight() []mutant {
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
			tests: []target{{"node/safety", "TestCrashPointDeletionOff"}},
		},
	}
}

// more breaks what the eight leave whole.
func more() []mutant {
	return []mutant{
		{
			name: "newer-version-ignored", rule: "an original goes only while its record is served",
			change: "that a newer version is served under the row's name is not asked",
			edits: []edit{{
				file: "node/keeper/original.go",
				old:  `	if newer == nil || newer.Type == `,
				new:  `	if o.c.found || newer == nil || newer.Type == `,
			}},
			tests: []target{{"node/keeper", "TestOriginalOfAnOlderVersionStays"}},
		},
		{
			name: "forgotten-pack-collected", rule: "an object goes only when its files are elsewhere",
			change: "what a fenced object holds is not looked for",
			edits: []edit{{
				file: "node/keeper/collect_keep.go",
				old: `	obj, err := k.cfg.Store.Head(ctx, key, "")
	switch {
	case errors.Is(err, store.ErrNotFound):`,
				new: `	obj, err := k.cfg.Store.Head(ctx, key, "")
	switch {
	case err == nil || errors.Is(err, store.ErrNotFound):`,
			}},
			tests: []target{{"node/keeper", "TestPackThatARolledBackStateForgotIsKept"}, {"node/safety", "TestRolledBackManifestCollectsNoPack"}},
		},
		{
			name: "packed-twice", rule: "the manifest is asked before a row is packed",
			change: "no live record is ever taken for the row's",
			edits: []edit{{
				file: "node/packer/prepare.go",
				old:  `	live := err == nil && sameVersion(found, it.listed)`,
				new:  `	live := err == nil && it.row.Version == 0 && sameVersion(found, it.listed)`,
			}},
			tests: []target{{"node/packer", "TestRestoredDatabaseIsNotPackedTwice"}},
		},
		{
			name: "half-read-file", rule: "a file is equal before and after reading",
			change: "only the size is compared when a file was read",
			edits: []edit{{
				file: "node/source/original.go",
				old:  `	if now != o.seen {`,
				new:  `	if now.size != o.seen.size {`,
			}},
			tests: []target{{"node/source", "TestFileChangedWhileItIsRead"}},
		},
		{
			name: "shared-file", rule: "a file reached by two rows is never deleted",
			change: "other rows are not looked for",
			edits: []edit{{
				file: "node/keeper/original_shared.go",
				old:  `	if rows == 0 {`,
				new:  `	if rows >= 0 {`,
			}},
			tests: []target{{"node/keeper", "TestRowBehindALinkedFolderSharesTheFile"}},
		},
		{
			name: "dead-record-served", rule: "reads skip dead records",
			change: "dead records are read",
			edits: []edit{{
				file: "node/retriever/locate.go",
				old:  `			if p.IsDead(loc.Ordinal) {`,
				new:  `			if p.IsDead(loc.Ordinal) && p.Size < 0 {`,
			}},
			tests: []target{{"node/retriever", "TestDeadRecordsAreSkipped"}},
		},
		{
			name: "not-everywhere", rule: "every member has applied the AddPack",
			change: "deletion does not wait for other members",
			edits: []edit{{
				file: "node/keeper/delete.go",
				old:  `	if !k.cfg.Manifest.AppliedEverywhere(p.AddIndex) {`,
				new:  `	if p.AddIndex == 0 {`,
			}},
			tests: []target{{"node/keeper", "TestDeletionWaitsFor"}},
		},
		{
			name: "put-back-overwrites", rule: "putting back overwrites nothing",
			change: "a rename replaces what has the name",
			edits: []edit{{
				file: "node/source/quarantine.go",
				old:  "unix.Renameat2(d.fd, from, d.fd, to, unix.RENAME_NOREPLACE)",
				new:  "unix.Renameat2(d.fd, from, d.fd, to, 0)",
			}},
			tests: []target{{"node/keeper", "TestPutBackOverwritesNothing"}},
		},
		{
			name: "earlier-life-collected", rule: "nothing of an earlier generation before its rebuild",
			change: "garbage of earlier generations does not wait",
			edits: []edit{{
				file: "raftmeta/view.go",
				old:  `	return u.Token.Generation == s.generation || s.rebuildDone(s.generation)`,
				new:  `	return u.Token.Generation <= s.generation`,
			}},
			tests: []target{{"raftmeta", "TestGarbageOfAnEarlierGenerationWaitsForItsRebuild"}},
		},
		{
			name: "error-means-missing", rule: "an error never means missing",
			change: "whatever keeps an object from being moved away, it is not there",
			edits: []edit{{
				file: "node/keeper/collect.go",
				old:  `	missing := errors.Is(err, store.ErrNotFound) // it was never uploaded`,
				new:  `	missing := err != nil`,
			}},
			tests: []target{{"node/keeper", "TestStoreErrorNeverMeansMissing"}},
		},
		{
			name: "walk-stops-early", rule: "the walk goes on while a pack may hold a newer version",
			change: "the first hit is the answer",
			edits: []edit{{
				file: "node/retriever/locate.go",
				old:  `		if best.rec != nil && p.MaxSeq.Compare(best.rec.Header.Seq) <= 0 {`,
				new:  `		if best.rec != nil {`,
			}},
			tests: []target{{"node/retriever", "TestAnyPacksServeTheLiveVersionOfTheHighestSeq"}},
		},
		{
			name: "applied-entries-replaced", rule: "what was applied is never replaced in the log",
			change: "a leader may cut off entries that were applied",
			edits: []edit{{
				file: "raftmeta/rollback.go",
				old:  "from > first && from <= applied {",
				new:  "from > first && from <= applied && applied == 0 {",
			}},
			tests: []target{{"raftmeta", "TestMajorityThatWentBackEndsBeforeItReplacesWhatWasApplied"}},
		},
	}
}
