package source

import "context"

// reach tries what every later query begins with. When the filter is refused,
// each of them would be, and the findings would blame something else. When the
// role may not read at all, its privileges say so, and what its queries would
// prove stays unknown.
func (c *check) reach(ctx context.Context) error {
	_, refused, err := c.try(ctx, "EXPLAIN SELECT"+c.from())
	switch {
	case err != nil:
		return err
	case refused == nil:
	case sqlState(refused) == insufficientPrivilege:
		c.blind = true
	case c.view.Filter != "":
		c.fail("filter", refused.Error(), "it chooses the rows, in every statement",
			"set the source's `filter` to a condition over the columns of "+c.view.Relation+", written t.column")
		c.stop = true
	default:
		c.refusedQuery(c.view.Relation, refused)
		c.stop = true
	}
	return nil
}

// seeing makes a check that is left out when the role may not read.
func (c *check) seeing(f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if c.blind {
			return nil
		}
		return f(ctx)
	}
}
