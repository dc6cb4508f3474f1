package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
)

// A node may lack a source that another one has brought into the cluster, until
// it is configured too and restarted. Meanwhile it must not speak for that
// source: neither say that a name does not exist, nor that a file belongs to no
// other row.

// lacking returns the cluster's sources that this node does not have.
func (n *Node) lacking() ([]string, error) {
	_, modIndex, _ := n.meta.View().Setting(sourcesKey)
	if k := n.lacks.Load(); k != nil && k.modIndex == modIndex {
		return k.names, nil
	}
	listed, modIndex, err := listSetting(n.meta.View(), sourcesKey)
	if err != nil {
		return nil, err
	}
	k := &lackingSources{modIndex: modIndex}
	for _, name := range listed {
		if !slices.ContainsFunc(n.sources, func(s source.Source) bool { return s.Name == name }) {
			k.names = append(k.names, name)
		}
	}
	n.lacks.Store(k)
	return k.names, nil
}

// lackingSources is what lacking found in a setting.
type lackingSources struct {
	modIndex uint64
	names    []string
}

// hasAllSources returns ErrSourceMissing when the node lacks some.
func (n *Node) hasAllSources() error {
	names, err := n.lacking()
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("%w: the cluster also archives %s; configure it on this node", ErrSourceMissing, strings.Join(names, ", "))
	}
	return err
}

// withLacking adds to the sources of reads those that the node lacks, which
// answer that they can't be asked.
func (n *Node) withLacking(own []retriever.Source) []retriever.Source {
	names, err := n.lacking()
	if err != nil {
		names = []string{"?"} // the list can't be read, and so may hold any
	}
	if len(names) == 0 {
		return own
	}
	all := slices.Clone(own)
	for _, name := range names {
		all = append(all, retriever.Source{Name: name, Rows: lackingRows(name)})
	}
	return all
}

// lackingRows are the rows of a source that the node lacks.
type lackingRows string

func (r lackingRows) ByName(context.Context, string) (source.Row, error) {
	return source.Row{}, fmt.Errorf("%w: %q, configured on other nodes only", ErrSourceMissing, string(r))
}

func (r lackingRows) ByID(ctx context.Context, id string) (source.Row, error) {
	return r.ByName(ctx, id)
}
