package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// errNoBucket: there is no such bucket. It says nothing about any object.
var errNoBucket = errors.New("the bucket does not exist")

// errRetryBudget: the request failed and is not repeated.
var errRetryBudget = errors.New("not tried again, as too many requests fail")

// errCode is the code in the server's answer; empty when there was none.
func errCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// errStatus is the status of the server's answer; 0 when there was none.
func errStatus(err error) int {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

// gone tells whether the server answered that there is no such object, or no
// such version of it. The bare 404 of a HEAD does not say what is missing.
func gone(err error) bool {
	switch errCode(err) {
	case "NoSuchKey", "NoSuchVersion":
		return true
	default:
		return false
	}
}

// refusedCondition tells whether the server answered that the condition of the
// request did not hold.
func refusedCondition(err error) bool { return errStatus(err) == http.StatusPreconditionFailed }

// unsupported tells whether the server answered that it does not know what it
// was asked.
func unsupported(err error) bool {
	return errStatus(err) == http.StatusNotImplemented || errCode(err) == "NotImplemented"
}

// call is one operation, for the text of its error.
type call struct {
	op    string // "put"
	key   string // of the store
	role  s3Role
	right string // what the role needs for it
}

// explain turns the SDK's error into one of this package's.
func (s *S3) explain(ctx context.Context, c call, err error) error {
	where := c.op
	if c.key != "" {
		where += " " + c.key
	}
	if errCtx := ctx.Err(); errCtx != nil {
		if cause := context.Cause(ctx); !errors.Is(cause, errCtx) {
			errCtx = fmt.Errorf("%w: %w", errCtx, cause)
		}
		return fmt.Errorf("%s: %w", where, errCtx)
	}
	var body *bodyError
	status, code := errStatus(err), errCode(err)
	switch {
	case errors.As(err, &body):
		return fmt.Errorf("%s: %w", where, body.err)
	case gone(err):
		return fmt.Errorf("%s: %w (%s)", where, ErrNotFound, code)
	case code == "NoSuchBucket":
		return fmt.Errorf("%s: %w: %q; check the store's URL", where, errNoBucket, s.target.bucket)
	case code == "InvalidObjectState":
		return fmt.Errorf("%s: %w: %w", where, ErrFrozen, err)
	case code == "InvalidAccessKeyId", code == "SignatureDoesNotMatch", code == "ExpiredToken", code == "InvalidToken":
		c.role.refused()
		return fmt.Errorf("%s: %w: the server does not accept the credentials to %s (from %s): %w", where, ErrAccess, c.role.name, c.role.from, err)
	case code == "RequestTimeTooSkewed":
		return fmt.Errorf("%s: %w: this machine's clock and the server's differ too much: %w", where, ErrAccess, err)
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return fmt.Errorf("%s: %w: the credentials to %s (from %s) lack %s on bucket %s: %w", where, ErrAccess, c.role.name, c.role.from, c.right, s.target.bucket, err)
	case status == http.StatusMovedPermanently, code == "AuthorizationHeaderMalformed":
		return fmt.Errorf("%s: the bucket is in another region than %q; set region=… in the store's URL: %w", where, c.role.Options().Region, err)
	case status == 0, blame(status) != nil, errors.Is(err, errBreaker):
		return fmt.Errorf("%s: %w: %w", where, ErrUnavailable, err)
	default:
		return fmt.Errorf("%s: %w", where, err)
	}
}
