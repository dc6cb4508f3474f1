package api

const octetStream = "application/octet-stream"

// byExtension returns the media type of a file name's extension, in lower case
// and without the dot. The table is fixed so that an answer does not depend on
// what is installed on the host. Text comes without a charset: nobody knows it.
func byExtension(ext string) string {
	switch ext {
	case "txt", "text", "log", "conf", "cfg", "ini", "go", "c", "h", "cc", "cpp", "hpp", "rs", "py", "rb", "pl",
		"java", "kt", "cs", "sh", "bat", "ps1", "sql", "s", "asm", "diff", "patch", "toml", "properties", "tex":
		return "text/plain"
	case "htm", "html":
		return "text/html"
	case "css":
		return "text/css"
	case "csv":
		return "text/csv"
	case "md", "markdown":
		return "text/markdown"
	case "ics":
		return "text/calendar"
	case "vcf":
		return "text/vcard"
	case "js", "mjs":
		return "text/javascript"
	case "xml", "xsl", "xsd":
		return "application/xml"
	}
	if t := documentType(ext); t != "" {
		return t
	}
	if t := mediaFileType(ext); t != "" {
		return t
	}
	return octetStream
}

// documentType knows structured data, documents, mail and archives.
func documentType(ext string) string {
	switch ext {
	case "json", "map":
		return "application/json"
	case "yaml", "yml":
		return "application/yaml"
	case "xhtml":
		return "application/xhtml+xml"
	case "pdf":
		return "application/pdf"
	case "rtf":
		return "application/rtf"
	case "doc", "dot":
		return "application/msword"
	case "docx":
		return "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	case "xls":
		return "application/vnd.ms-excel"
	case "xlsx":
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case "ppt":
		return "application/vnd.ms-powerpoint"
	case "pptx":
		return "application/vnd.openxmlformats-officedocument.presentationml.presentation"
	case "odt":
		return "application/vnd.oasis.opendocument.text"
	case "ods":
		return "application/vnd.oasis.opendocument.spreadsheet"
	case "odp":
		return "application/vnd.oasis.opendocument.presentation"
	case "epub":
		return "application/epub+zip"
	case "eml":
		return "message/rfc822"
	case "msg":
		return "application/vnd.ms-outlook"
	case "p7m":
		return "application/pkcs7-mime"
	case "p7s":
		return "application/pkcs7-signature"
	case "zip":
		return "application/zip"
	case "gz", "tgz":
		return "application/gzip"
	case "tar":
		return "application/x-tar"
	case "bz2":
		return "application/x-bzip2"
	case "xz":
		return "application/x-xz"
	case "zst":
		return "application/zstd"
	case "7z":
		return "application/x-7z-compressed"
	case "wasm":
		return "application/wasm"
	case "ps", "eps", "ai":
		return "application/postscript"
	case "dcm":
		return "application/dicom"
	}
	return ""
}

// mediaFileType knows images, sound, video and fonts.
func mediaFileType(ext string) string {
	switch ext {
	case "png", "gif", "bmp", "webp", "avif", "heic", "heif", "jxl":
		return "image/" + ext
	case "jpg", "jpeg", "jpe":
		return "image/jpeg"
	case "tif", "tiff":
		return "image/tiff"
	case "svg":
		return "image/svg+xml"
	case "ico":
		return "image/vnd.microsoft.icon"
	case "dwg":
		return "image/vnd.dwg"
	case "djvu", "djv":
		return "image/vnd.djvu"
	case "mp3":
		return "audio/mpeg"
	case "m4a":
		return "audio/mp4"
	case "wav":
		return "audio/wav"
	case "ogg", "oga", "opus":
		return "audio/ogg"
	case "flac":
		return "audio/flac"
	case "mp4", "m4v":
		return "video/mp4"
	case "webm":
		return "video/webm"
	case "mov":
		return "video/quicktime"
	case "avi":
		return "video/x-msvideo"
	case "mkv":
		return "video/x-matroska"
	case "mpg", "mpeg":
		return "video/mpeg"
	case "woff", "woff2", "ttf", "otf":
		return "font/" + ext
	}
	return ""
}
