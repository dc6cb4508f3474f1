package dev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Postgres is a running Postgres server.
type Postgres struct {
	// URL connects as superuser to the database "postgres", without TLS.
	URL string
	// Port is its port on 127.0.0.1, which stays through Stop and Start.
	Port int

	dir  string // holds data/ and the log
	bin  string
	user *user.User // whom the server runs as; nil: us
	proc *process
}

// StartPostgres starts the Postgres cluster below dir, which it makes when the
// folder is empty. Connections are trusted; any role may log in without a
// password. options are further settings, such as "max_connections=50".
func StartPostgres(ctx context.Context, dir string, options ...string) (*Postgres, error) {
	p := &Postgres{dir: dir}
	err := p.find()
	if err == nil {
		if _, stat := os.Stat(filepath.Join(dir, "data", "PG_VERSION")); stat != nil {
			err = p.init(ctx)
		}
	}
	if err == nil {
		p.Port, err = portOf(ctx, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	p.URL = p.DatabaseURL("postgres", "postgres")
	conf, err := os.OpenFile(filepath.Join(dir, "data", "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	for _, o := range append([]string{
		"listen_addresses='127.0.0.1'", "port=" + strconv.Itoa(p.Port), "unix_socket_directories=''",
		"fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=100",
		"shared_buffers=128MB", "max_wal_size=2GB", "log_line_prefix='%m %p %u '",
	}, options...) {
		if _, err = fmt.Fprintln(conf, o); err != nil {
			break
		}
	}
	if err = errors.Join(err, conf.Close()); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return p, p.Start(ctx)
}

// find finds the server's programs and whom they may run as.
func (p *Postgres) find() error {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return errors.New("no server in /usr/lib/postgresql: run `make test-deps`")
	}
	p.bin = filepath.Dir(found[len(found)-1])
	if os.Getuid() != 0 {
		return nil
	}
	p.user, err = user.Lookup("postgres") // it refuses to run as root
	return err
}

// command returns a command that runs as the server's user.
func (p *Postgres) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	path := filepath.Join(p.bin, program)
	if p.user == nil {
		return exec.CommandContext(ctx, path, args...) //nolint:gosec // a program of the installed server
	}
	// setpriv replaces itself by the server, so that signals reach it. Taking
	// another user forgets the signal at the parent's death: it sets that anew.
	args = append([]string{"--reuid", p.user.Uid, "--regid", p.user.Gid, "--clear-groups", "--pdeathsig", "INT", "--", path}, args...)
	return exec.CommandContext(ctx, "setpriv", args...) //nolint:gosec // likewise
}

func (p *Postgres) init(ctx context.Context) error {
	if p.user != nil {
		uid, errUID := strconv.Atoi(p.user.Uid)
		gid, errGID := strconv.Atoi(p.user.Gid)
		if err := errors.Join(errUID, errGID, os.Chown(p.dir, uid, gid)); err != nil {
			return err
		}
	}
	cmd := p.command(ctx, "initdb", "-D", filepath.Join(p.dir, "data"), "-A", "trust", "-U", "postgres",
		"-E", "UTF8", "--no-locale", "--no-sync")
	cmd.Dir = p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// PSQL runs a script of SQL, and of psql's own commands, as superuser in a
// database. It ends at the first error.
func (p *Postgres) PSQL(ctx context.Context, database, script string) (string, error) {
	cmd := p.command(ctx, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
		"-h", "127.0.0.1", "-p", strconv.Itoa(p.Port), "-U", "postgres", "-d", database)
	cmd.Dir = p.dir
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// DatabaseURL connects as user to a database, without TLS.
func (p *Postgres) DatabaseURL(user, database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", user, p.Addr(), database)
}

// Start starts a server that was stopped, and waits until it answers.
func (p *Postgres) Start(ctx context.Context) error {
	cmd := p.command(context.WithoutCancel(ctx), "postgres", "-D", filepath.Join(p.dir, "data"))
	cmd.Dir = p.dir
	var err error
	if p.proc, err = run(p.dir, "postgres", cmd); err != nil {
		return err
	}
	return p.proc.ready(ctx, p.answers)
}

// answers asks whether the server takes connections.
func (p *Postgres) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	out, err := p.command(ctx, "pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(p.Port)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pg_isready: %w %s", err, out)
	}
	return nil
}

// Stop ends the server at once, cutting its connections; its data stay.
func (p *Postgres) Stop() error { return p.proc.stop(syscall.SIGINT) }

// Kill ends the server as a power cut would, but for its children.
func (p *Postgres) Kill() error { return p.proc.stop(syscall.SIGQUIT) }

// Addr is its address, host:port.
func (p *Postgres) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port)) }
