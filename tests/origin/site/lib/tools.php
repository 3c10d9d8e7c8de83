<?php

declare(strict_types=1);

// What the tests need and TYPO3 does not have: an echo, and answers of any shape.

function tool(string $path): bool
{
    switch ($path) {
        case '/echo':
            answer(200, echoed(), [], 'application/json; charset=utf-8');
            return true;
        case '/reply':
            reply();
            return true;
        case '/download':
            download((int)($_GET['bytes'] ?? 0));
            return true;
        case '/slow':
            usleep(1000 * (int)($_GET['ms'] ?? 0));
            answer(200, 'at last', [], 'text/plain; charset=utf-8');
            return true;
        case '/trickle':
            trickle((int)($_GET['pieces'] ?? 5), (int)($_GET['ms'] ?? 100));
            return true;
        case '/cache-tags':
            cacheTags((int)($_GET['lines'] ?? 1));
            return true;
        case '/leaks':
            answer(200, html('Leaks', ''), ['X-Powered-By: PHP/8.2.36', 'X-Generator: TYPO3 CMS', 'X-TYPO3-Parsetime: 42ms',
                'X-TYPO3-Debug-Cache: Cached page', 'X-Redirect-By: TYPO3 Shortcut/Mountpoint', 'X-AspNet-Version: 4.0']);
            return true;
        case '/session':
            answer(200, html('Session', ''), ['Set-Cookie: PHPSESSID=0123456789abcdef; path=/', 'Set-Cookie: fe_typo_user=abcdef; path=/; SameSite=Lax',
                'Set-Cookie: theme=dark; path=/; expires=Sun, 22 Nov 2037 13:39:47 GMT']);
            return true;
        case '/cached':
            cached();
            return true;
        case '/no-content':
            http_response_code(204);
            return true;
        case '/redirect':
            answer((int)($_GET['status'] ?? 302), '', ['Location: ' . ($_GET['to'] ?? '/')]);
            return true;
        case '/chunked':
            header('Content-Type: text/plain; charset=utf-8');
            foreach (['one ', 'two ', 'three'] as $word) {
                echo $word;
                flush();
            }
            return true;
        default:
            return false;
    }
}

/** Exactly what this server saw. */
function echoed(): string
{
    $body = (string)file_get_contents('php://input');
    $server = array_filter($_SERVER, fn($name) => str_starts_with((string)$name, 'HTTP_')
        || in_array($name, ['REQUEST_METHOD', 'REQUEST_URI', 'QUERY_STRING', 'SERVER_PROTOCOL', 'REMOTE_ADDR', 'HTTPS', 'SERVER_NAME', 'SERVER_PORT', 'CONTENT_TYPE', 'CONTENT_LENGTH'], true), ARRAY_FILTER_USE_KEY);
    return json_encode([
        'method' => $_SERVER['REQUEST_METHOD'],
        'uri' => $_SERVER['REQUEST_URI'],
        'protocol' => $_SERVER['SERVER_PROTOCOL'],
        'headers' => getallheaders(),
        'server' => $server,
        'body_length' => strlen($body),
        'body_sha256' => hash('sha256', $body),
    ], JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE | JSON_PRETTY_PRINT);
}

/** `?status=…&field[]=Name: value&field[]=…&body=…`: fields exactly as asked for, repeated ones too. */
function reply(): void
{
    $type = 'text/html; charset=utf-8';
    $fields = [];
    foreach ((array)($_GET['field'] ?? []) as $field) {
        if (stripos((string)$field, 'content-type:') === 0) {
            $type = trim(substr((string)$field, 13));
        } else {
            $fields[] = (string)$field;
        }
    }
    answer((int)($_GET['status'] ?? 200), (string)($_GET['body'] ?? 'reply'), $fields, $type);
}

/** `bytes` of a fixed pattern, never held in memory. */
function download(int $bytes): void
{
    header('Content-Type: application/octet-stream');
    header('Content-Length: ' . $bytes);
    $piece = str_repeat('0123456789abcdef', 4096);
    while ($bytes > 0) {
        $now = min($bytes, strlen($piece));
        echo $now === strlen($piece) ? $piece : substr($piece, 0, $now);
        flush();
        $bytes -= $now;
    }
}

/** A body in pieces with a pause after each. */
function trickle(int $pieces, int $ms): void
{
    header('Content-Type: text/plain; charset=utf-8');
    for ($i = 0; $i < $pieces; $i++) {
        echo "piece $i\n";
        flush();
        usleep(1000 * $ms);
    }
}

/** TYPO3's debug cache tags: lines of 8 KiB. */
function cacheTags(int $lines): void
{
    $tags = '';
    for ($i = 0; strlen($tags) < 8192 - 20; $i++) {
        $tags .= "pageId_$i ";
    }
    $fields = array_map(fn($n) => 'X-TYPO3-Cache-Tags: ' . $tags . 'line' . $n, range(1, max(1, $lines)));
    answer(200, html('Cache tags', ''), $fields);
}

/** A page with an ETag and a policy of its own, which a 304 must not lose. */
function cached(): void
{
    $etag = '"7c5e1f"';
    $fields = ["ETag: $etag", 'Cache-Control: max-age=60', "Content-Security-Policy: default-src 'self'"];
    if (($_SERVER['HTTP_IF_NONE_MATCH'] ?? '') === $etag) {
        http_response_code(304);
        foreach ($fields as $field) {
            header($field);
        }
        return;
    }
    answer(200, html('Cached', ''), $fields);
}
