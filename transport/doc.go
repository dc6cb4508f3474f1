// Package transport is what nodes say to one another and how they know whom
// they talk to: the cluster's certificate authority and a node's identity, one
// QUIC endpoint with the planes join, read and call, and at the same port number
// TCP with mutual TLS for Raft.
//
// It knows bytes, keys and connections. It is not for deciding who is a member
// (Config.Allowed), where members are (Config.Resolve), what a name's record is
// (Reader), what a call means (Handler) or whether a join token is good (Issuer):
// all five are handed in.
//
// # Who is who
//
// A node is a URI in its certificate, desnode://<cluster>/<node>, signed by the
// cluster's CA. Every connection is mutual TLS 1.3 except a first join, whose
// joiner has no certificate yet. Whoever dials a node checks that the
// certificate names this very node; whoever is dialled learns the node from the
// certificate and asks Allowed. There is no session resumption and no 0-RTT.
//
// # Planes
//
//	desnode-read/1  QUIC; one stream is one request with its answer
//	desnode-call/1  QUIC; the same, on a connection of its own
//	desnode-join/1  QUIC; the same, for joining and for renewing a certificate
//	desnode-raft/1  TLS on TCP; after the handshake the node that was dialled
//	                sends one byte, 0 for welcome or the QUIC error code of its
//	                refusal, and then the bytes belong to Raft
//
// Error codes of QUIC connections: 0 the node shuts down or the caller is
// done, 1 the peer is not a member of the cluster, 2 the plane is not served
// here, 3 protocol error. Of streams: 0 the caller has lost interest, 1 the
// request could not be read, 2 the answer ended early.
//
// # Frames
//
// Integers are little-endian. A frame is
//
//	 0  4  length of the body, bounded by the kind
//	 4  1  version, 1
//	 5  1  kind: 1 request, 2 response, 3 chunk, 4 trailer, 5 join, 6 admission, 7 renewal, 8 call
//	 6  2  zero
//	 8  4  CRC32C of bytes 0 to 8 and the body
//	12  …  body
//
// Longest bodies: request 16 KiB, response 2 MiB, chunk 64 KiB, trailer 4 KiB,
// join 64 KiB, admission 1 MiB, renewal 64 KiB, call 4 KiB. A receiver holds the length
// against the bound before it allocates anything. The body of a chunk is
// payload; all others are fields of rising type:
//
//	0  2  type; bit 0x8000: critical
//	2  4  length
//	6  …  value
//
// A type that the receiver does not know is skipped, unless it is critical:
// then the whole message is refused. So a later version adds a field that may
// be missed under a plain type, and one that may not under a critical type. A
// field whose value is zero or empty is left out. Text is bytes of UTF-8 without
// a terminator. A time is seconds i64 and nanoseconds u32 since 1970, UTC.
//
// Request, on the read plane:
//
//	 1  u8        kind: 1 open, 2 stat, 3 locate. Required
//	 2  ≤ 1024    name, or
//	 3  ≤ 64      id in the source system
//	 4  ≤ 64      the source's short name
//	 5  u64 u64   range: offset, length; missing: the whole
//	 6  u64       least Raft index that the answering node must have applied
//	 7  u8        hops behind this request; at most 1
//	 8  ≤ 128     request id
//	 9  ≤ 128     traceparent
//	10  u64       time left for the answer, microseconds. Required
//	11  u32       longest payload wanted; of a larger one its location is wanted; missing: no bound
//
// Response:
//
//	 1  u8        status: 1 OK, 2 not found, 3 gone, 4 declined, 5 not owner, 6 busy,
//	              7 unavailable, 8 unconfirmed, 9 corrupt, 10 invalid, 11 hop loop,
//	              12 unsupported, 13 range, 14 too late, 15 internal. Required
//	 2  ≤ 64      problem code
//	 3  ≤ 1024    detail, for people
//	 4  u64       Raft index that the answering node has applied
//	 5  u32       retry after, milliseconds
//	16  ≤ 1024    name
//	17  ≤ 64      id
//	18  ≤ 64      source
//	19  u64       size of the content
//	20  32        SHA-256 of the content
//	21  12        modified, a time
//	22  12        created, a time
//	23  ≤ 1024    content type
//	24  ≤ 1 MiB   the customer's metadata
//	25  16        pack id
//	26  u32       ordinal in the pack
//	27  u64 u64   seq: generation, index
//	28  u64       archive version
//	29  ≤ 64      retention class
//	30  u64 u64   range that the payload is: offset, length
//	31  ≤ 256     entity tag, where it is not the SHA-256
//	32  u8        origin: 1 pack, 2 source
//	33  …         location: offset u64, length u64, key length u16, key ≤ 1024, store version id ≤ 1024
//	34  u64 + 1   payload: length, then 0; the payload follows, be it empty
//
// With field 34 the answer goes on with chunks, none of them empty, and one
// trailer; without it, the response is all. Trailer:
//
//	1  u8        status, as above. Required
//	2  ≤ 64      problem code
//	3  ≤ 1024    detail
//	4  4         CRC32C of the payload
//	5  u64       bytes of payload sent
//
// Each side closes its half of the stream after its last frame. A caller that
// loses interest stops reading (STOP_SENDING) and resets its half; the server's
// context ends with it.
//
// On the call plane a stream carries a call and its body in chunks, none of them
// empty, then a response as above, without the fields 16 to 33; field 34 is left
// out or goes on with chunks and a trailer. Body and payload are at most 80 MiB.
// Call:
//
//	1  ≤ 32      method, of a-z and -. Required
//	2  u64       time left for the answer, microseconds. Required
//	3  u64       length of the body, bytes; missing: none
//
// On the join plane a stream carries a join or a renewal, and one admission.
// Join:
//
//	1  16        token id. Required
//	2  ≤ 63      node id. Required
//	3  32        proof. Required
//	4  ≤ 4096    certificate request, DER; its URI ends with /<node>. Required
//
// The proof is HMAC-SHA-256, under the token's verifier, of the TLS exporter
// (label EXPORTER-desnode-join/1, context: SHA-256 of token id, length u8 of the node id, node id and
// certificate request, 32 bytes). The verifier is HKDF-SHA-256 of the token's
// secret, info "desnode join verifier/1", 32 bytes. Renewal:
//
//	1  ≤ 4096    certificate request, DER. Required
//
// Admission:
//
//	1  u8        status: 1 OK, 2 wrong token, 3 expired token, 4 used-up token,
//	             5 not a member, 6 invalid, 7 unavailable, 8 already a member. Required
//	2  ≤ 1024    detail, for people
//	3  ≤ 8192    the node's certificate, DER
//	4  ≤ 8192    the CA's certificate, DER
//	5  ≤ 64      cluster id
//	6  32        cluster secret
//	7  …         gossip keys, each: length u8, key; the one in use first
//	8  ≤ 512 KiB settings, opaque
//
// A renewal is answered with 1 to 4 only.
//
// # Join token
//
// The text dnj1 followed by lower-case base32 (RFC 4648, no padding) of
//
//	 0   1  version, 1
//	 1  16  token id
//	17  16  secret
//	33  32  pin: SHA-256 of the CA's SubjectPublicKeyInfo
//	65   8  expiry, seconds since 1970, i64; 0: none
//	73   2  uses; 0: no bound
//	75   4  CRC32C of bytes 0 to 75
//
// # Sealed secrets
//
// The CA's key, and what else the state or the object store holds under the
// cluster secret, is
//
//	 0   1  version, 1
//	 1   1  algorithm, 1: AES-256-GCM
//	 2  32  salt
//	34  12  nonce
//	46   …  ciphertext and tag
//
// The key is HKDF-SHA-256 of the cluster secret with the salt and an info. For
// the CA's key, PKCS #8, the info is "desnode ca key/1" and the additional data
// is that text, the cluster id and the pin. For any other purpose the info is
// "desnode sealed/1 " and the purpose, 1 to 32 of a-z and -; the additional data
// is that text, "/" and the cluster id.
package transport
