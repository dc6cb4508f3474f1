//go:build !linux

package rig

import (
	"context"
	"errors"
	"net"
)

// Way is one way of what a host exchanges with another.
type Way string

// The ways.
const (
	In  Way = "in"
	Out Way = "out"
)

// Network is there so that the programs build: namespaces are Linux's.
type Network struct{ Hosts []*Host }

var errNoHosts = errors.New("network namespaces need Linux")

// NewNetwork makes no hosts here.
func NewNetwork(context.Context, int) (*Network, error) { return nil, errNoHosts }

// Close does nothing.
func (*Network) Close() error { return nil }

// Cut and Heal do nothing.
func (*Host) Cut(context.Context) error  { return errNoHosts }
func (*Host) Heal(context.Context) error { return errNoHosts }

// Filter and Unfilter do nothing.
func (*Host) Filter(context.Context, []*Host, ...Way) error { return errNoHosts }
func (*Host) Unfilter(context.Context) error                { return errNoHosts }

// Listen opens nothing.
func (*Host) Listen(context.Context, string) (net.Listener, error) { return nil, errNoHosts }

func (*Host) inside(program []string) []string { return program }

func (*Host) dial(context.Context, string, string) (net.Conn, error) { return nil, errNoHosts }
