// Package api is the HTTP face of a node: files by name and by id, health,
// metrics, and the operator's endpoints below /cluster/. openapi.yaml beside
// it is the contract, and the tests hold the answers against it.
//
// Invariants:
//   - A name is all that follows /files/ in the escaped path, decoded once.
//     Nothing is cleaned and nothing is redirected.
//   - Once a byte of a file has been sent, an error breaks the connection: a
//     response that ends cleanly is complete and verified.
//   - Not found and gone are answered only when the retriever says so; every
//     other error is a 5xx.
//   - State changes are answered to loopback peers only, never through a proxy
//     and never to a page in a browser.
//   - No client holds a connection by doing nothing: header, body, idling and
//     each write have a limit; an answer that is taken bit by bit has none.
//   - A request is logged above debug level only when a server is at fault.
//
// Not for: finding records (retriever), knowing how work is done (the node
// behind Operator and Observer).
package api
